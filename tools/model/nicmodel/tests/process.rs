// SPDX-License-Identifier: GPL-2.0
//! The process as the lab starts and stops it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

struct Model {
    child: Child,
    sockets: Vec<PathBuf>,
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("nicmodel-{}-{name}.sock", std::process::id()))
}

impl Model {
    /// Starts the model and waits until it is ready.
    fn start(names: &[&str], more: &[&str]) -> Self {
        let sockets: Vec<PathBuf> = names.iter().map(|name| socket(name)).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nicmodel"));
        for path in &sockets {
            command.arg("--port").arg(path);
        }
        let mut child = command.args(more).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, sockets }
    }

    /// A client that gets as far as the version.
    fn connect(&self, port: usize) -> UnixStream {
        let mut stream = UnixStream::connect(&self.sockets[port]).unwrap();
        let mut message = [1u16, 1].map(u16::to_ne_bytes).concat();
        message.extend([20u32, 0, 0, 0].map(u32::to_ne_bytes).concat());
        stream.write_all(&message).unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[8], 1);
        stream
    }

    fn wait(mut self) {
        assert!(self.child.wait().unwrap().success());
        for socket in &self.sockets {
            assert!(!socket.exists(), "{} is left", socket.display());
        }
    }
}

#[test]
fn ends_on_sigterm_with_clients_connected() {
    let model = Model::start(&["term0", "term1"], &[]);
    let _client = model.connect(1);
    kill(Pid::from_raw(model.child.id() as i32), Signal::SIGTERM).unwrap();
    model.wait();
}

#[test]
fn once_ends_when_all_clients_have_gone() {
    let model = Model::start(&["once0", "once1"], &["--once"]);
    let clients = [model.connect(0), model.connect(1)];
    drop(clients);
    model.wait();
}

#[test]
fn a_client_may_follow_another() {
    let model = Model::start(&["next"], &[]);
    for _ in 0..3 {
        let mut client = model.connect(0);
        client.write_all(&[0xff; 64]).unwrap();
        let mut rest = Vec::new();
        // Bad framing: closed, perhaps with some of the bytes unread.
        let _ = client.read_to_end(&mut rest);
    }
    kill(Pid::from_raw(model.child.id() as i32), Signal::SIGTERM).unwrap();
    model.wait();
}

#[test]
fn mistakes_on_the_command_line_are_told() {
    let taken = socket("taken");
    let _listener = std::os::unix::net::UnixListener::bind(&taken).unwrap();
    let taken = taken.to_str().unwrap();
    let free = socket("free");
    let free = free.to_str().unwrap();
    let plan = std::env::temp_dir().join(format!("nicmodel-{}-faults.toml", std::process::id()));
    std::fs::write(&plan, "[[frame]]\nport = 1\naction = \"drop\"\n").unwrap();
    let plan = plan.to_str().unwrap();
    let cases: &[&[&str]] = &[
        &["--port", free, "--faults", "/nonexistent.toml"],
        &["--port", free, "--faults", plan],
        &[],
        &["--port", taken],
        &["--port", "/nonexistent/dir/nic.sock"],
        &["--port", free, "--wire", "0-1"],
        &["--port", free, "--wire", "0-0"],
        &["--port", free, "--wire", "7=tap:x"],
        &["--port", free, "--wire", "0=connect:unix:/nonexistent.sock"],
        &["--port", free, "--capture", "/nonexistent/dir/c.pcapng"],
        &["--port", free, "--capture-port", "0"],
        &["--port", free, "--capture", "/dev/null", "--capture-port", "1"],
        &["--port", free, "--unknown"],
    ];
    for arguments in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_nicmodel")).args(*arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
    std::fs::remove_file(taken).unwrap();
    std::fs::remove_file(plan).unwrap();
}
