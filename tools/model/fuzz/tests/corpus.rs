// SPDX-License-Identifier: GPL-2.0
//! Replays the corpus, and says if it no longer gets to where it got: a target
//! whose set-up the model refuses would find nothing any more.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use nicmodel_fuzz::{Reached, TARGETS};

fn replay(name: &str, expected: &[&str]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("no such target");
    let corpus: PathBuf = [env!("CARGO_MANIFEST_DIR"), "corpus", name].iter().collect();
    let mut reached = Reached::new();
    for file in fs::read_dir(corpus).unwrap() {
        reached.extend(target(&fs::read(file.unwrap().path()).unwrap()));
    }
    for expected in expected {
        assert!(reached.contains(*expected), "{expected:?} is not reached, only {reached:?}");
    }
}

#[test]
fn commands() {
    // Keys, queues of each kind, their states, TIRs, steering, objects of the offload.
    let opcodes =
        [0x200, 0x301, 0x400, 0x403, 0x805, 0x900, 0x904, 0x905, 0x908, 0x909, 0x917, 0x930, 0x936, 0x938, 0xa00];
    let opcodes = opcodes.map(|opcode| format!("command {opcode:#x}"));
    let mut expected: Vec<&str> = opcodes.iter().map(String::as_str).collect();
    expected.push("not delivered");
    replay("commands", &expected);
}

#[test]
fn frames() {
    let dropped =
        ["dropped: no receive buffer", "dropped: port", "dropped: receive queue not ready", "dropped: steering"];
    let delivered = ["checksums", "hash", "l3 not ok", "l4 not ok", "l4 ok", "tag stripped"];
    replay("frames", &[&dropped[..], &delivered].concat());
}

#[test]
fn pdu_tracker() {
    replay("pdu_tracker", &["PDU vouched for", "Searching", "Tracking", "confirmed", "digest ok", "placed", "resync"]);
}

#[test]
fn vfio_user() {
    let messages = [1, 2, 4, 5, 7, 8, 9, 10, 13].map(|command| format!("command {command} done"));
    let mut expected: Vec<&str> = messages.iter().map(String::as_str).collect();
    expected.extend(["closed", "connection closed inside a message", "impossible message size", "unexpected reply"]);
    replay("vfio_user", &expected);
}

#[test]
fn work_requests() {
    let completions = ["WQE 0xa", "WQE 0xe", "WQE 0x20", "WQE 0x25", "syndrome 0x1", "syndrome 0x2", "syndrome 0x4"];
    let packets = ["segment", "sum filled in", "placed", "digest ok", "resync", "Searching", "dropped: receive buffer"];
    replay("work_requests", &[&completions[..], &packets].concat());
}
