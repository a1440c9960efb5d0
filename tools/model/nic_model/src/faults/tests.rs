// SPDX-License-Identifier: GPL-2.0

use std::collections::VecDeque;

use super::*;
use crate::packet::tests::frame;

fn faults(text: &str) -> Faults {
    Faults::new(&Plan::parse(text, 2).unwrap(), 0)
}

/// What becomes of frames that are one after the other received.
fn receive(faults: &mut Faults, frames: &[Vec<u8>]) -> VecDeque<Vec<u8>> {
    let mut out = VecDeque::new();
    for frame in frames {
        let fault = faults.frame(Direction::Received, frame);
        faults.pass(fault, Direction::Received, frame.clone(), &mut out);
    }
    out
}

/// Small frames that are all different.
fn numbered(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number; 60]).collect()
}

/// A UDP datagram to this port.
fn datagram(port: u16) -> Vec<u8> {
    let mut datagram = frame(false, L4::Udp, None, b"x");
    let at = Packet::parse(&datagram).unwrap().l4.unwrap().1;
    datagram[at + 2..at + 4].copy_from_slice(&port.to_be_bytes());
    datagram
}

fn error(text: &str) -> String {
    Plan::parse(text, 2).unwrap_err().to_string()
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, line, word) in [
        ("sed = 1", 1, "sed"),
        ("seed = -1", 1, "invalid value"),
        ("\n[[frames]]\n", 2, "frames"),
        ("[[frame]]\nport = 0\n", 1, "action"),
        ("[[frame]]\naction = \"lose\"\n", 2, "lose"),
        ("[[frame]]\naction = { delay = { s = 1 } }\n", 2, "unknown field `s`"),
        ("[[frame]]\naction = \"drop\"\nwhen = { nth = 0 }\n", 3, "nonzero"),
        ("[[frame]]\naction = \"drop\"\nwhen = { nth = 1, every = 2 }\n", 3, "only one of"),
        ("[[frame]]\naction = \"drop\"\nwhen = { probability = 1.5 }\n", 3, "probability"),
        ("[[frame]]\naction = \"drop\"\nmatch = { source = \"here\" }\n", 3, "IP"),
        ("[[frame]]\naction = \"drop\"\nmatch = { stream = [5, 5] }\n", 3, "behind its start"),
        ("[[frame]]\naction = \"drop\"\nmatch = { vector = 1 }\n", 3, "vector"),
        ("[[command]]\naction = { fail = { status = 0 } }\n", 2, "success"),
        ("[[completion]]\naction = { lie = { opcode = 16 } }\n", 2, "0x10"),
        ("[[device]]\nwhen = { nth = 1 }\naction = \"remove\"\n", 2, "nth"),
        ("[[event]]\naction = \"lose\"\n\n[[device]]\nport = 2\naction = \"remove\"\n", 5, "there are 2 ports"),
    ] {
        let message = error(text);
        assert!(message.contains(&format!("line {line}")) && message.contains(word), "{text}\n{message}");
    }
}

#[test]
fn every_rule_of_the_readme_can_be_read() {
    let readme = include_str!("../../../README.md");
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        Plan::parse(block, 2).unwrap();
    }
    // The actions and matches of the tables in the text.
    let actions = readme.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('`').nth(1));
    let mut seen = 0;
    for cell in actions.filter(|cell| cell.starts_with('"') || cell.starts_with("{ ")) {
        let tables = ["frame", "device"];
        let fits = |table: &&str| Plan::parse(&format!("[[{table}]]\naction = {cell}\n"), 2).is_ok();
        assert!(tables.iter().any(fits), "{cell}");
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn nth_every_and_count() {
    let left = |when: &str| {
        let text = format!("[[frame]]\nwhen = {{ {when} }}\naction = \"drop\"\n");
        receive(&mut faults(&text), &numbered(7)).iter().map(|frame| frame[0]).collect::<Vec<u8>>()
    };
    assert_eq!(left(""), []);
    assert_eq!(left("nth = 3"), [0, 1, 3, 4, 5, 6]);
    assert_eq!(left("every = 3"), [0, 1, 3, 4, 6]);
    assert_eq!(left("every = 2, count = 1"), [0, 2, 3, 4, 5, 6]);
    assert_eq!(left("count = 2"), [2, 3, 4, 5, 6]);
    assert_eq!(left("after = { frames = 4 }, count = 1"), [0, 1, 2, 3, 5, 6]);
}

#[test]
fn the_first_rule_that_takes_a_frame_is_the_only_one() {
    let text = "[[frame]]\nwhen = { every = 2 }\naction = \"drop\"\n[[frame]]\naction = \"duplicate\"\n";
    let out = receive(&mut faults(text), &numbered(4));
    assert_eq!(out.iter().map(|frame| frame[0]).collect::<Vec<u8>>(), [0, 0, 2, 2]);
}

#[test]
fn a_seed_gives_the_same_faults_again() {
    let run = |seed: u64, port: u32| {
        let text = format!("seed = {seed}\n[[frame]]\nwhen = {{ probability = 0.3 }}\naction = {{ corrupt = {{}} }}\n");
        let mut faults = Faults::new(&Plan::parse(&text, 2).unwrap(), port);
        receive(&mut faults, &numbered(200))
    };
    let once = run(7, 0);
    assert_eq!(once, run(7, 0));
    assert_ne!(once, run(8, 0));
    assert_ne!(once, run(7, 1));
    let changed = once.iter().filter(|frame| frame.iter().any(|byte| *byte != frame[0])).count();
    assert!((30..90).contains(&changed), "{changed} of 200 with probability 0.3");
    assert!(
        once.iter().all(|frame| frame[..14].iter().all(|byte| *byte == frame[0])),
        "Ethernet headers are left alone"
    );
}

#[test]
fn a_frame_of_any_length_can_be_corrupted() {
    let mut faults = faults("[[frame]]\naction = { corrupt = {} }\n");
    for len in 0..20 {
        let frame = vec![0; len];
        let out = receive(&mut faults, std::slice::from_ref(&frame));
        assert_eq!(out.len(), 1);
        assert_eq!(out[0] != frame, len > 0, "{len}");
    }
}

#[test]
fn frames_are_chosen_by_header() {
    let taken = |wanted: &str, frame: &[u8]| {
        let text = format!("[[frame]]\nmatch = {{ {wanted} }}\naction = \"drop\"\n");
        faults(&text).frame(Direction::Received, frame).is_some()
    };
    let v4 = frame(false, L4::Tcp, Some(5), b"x");
    let v6 = frame(true, L4::Udp, None, b"x");
    for (wanted, in_v4, in_v6) in [
        ("", true, true),
        ("direction = \"send\"", false, false),
        ("direction = \"receive\"", true, true),
        ("protocol = \"tcp\"", true, false),
        ("protocol = \"udp\"", false, true),
        ("source = \"10.0.0.1\"", true, false),
        ("destination = \"10.0.0.1\"", false, false),
        ("source = \"102:304:506:708:90a:b0c:d0e:f10\"", false, true),
        ("source_port = 0x1234", true, true),
        ("destination_port = 4000", true, true),
        ("destination_port = 4001", false, false),
    ] {
        assert_eq!((taken(wanted, &v4), taken(wanted, &v6)), (in_v4, in_v6), "{wanted}");
        assert!(!taken(wanted, &[0; 3]) || wanted.is_empty() || wanted.contains("receive"));
    }
}

#[test]
fn bytes_of_a_stream_are_counted_from_its_syn() {
    // Close to where sequence numbers wrap.
    let start = 0xffff_ff00u32;
    let segment = |flags: u8, offset: u32, len: usize| {
        let mut segment = frame(false, L4::Tcp, None, &vec![0; len]);
        let at = Packet::parse(&segment).unwrap().l4.unwrap().1;
        segment[at + 4..at + 8].copy_from_slice(&start.wrapping_add(offset).to_be_bytes());
        segment[at + 13] = flags;
        segment
    };
    let mut faults = faults("[[frame]]\nmatch = { stream = [1000, 1001] }\naction = \"drop\"\n");
    let mut taken = |frame: &[u8]| faults.frame(Direction::Received, frame).is_some();
    assert!(!taken(&segment(0x10, 1001, 100)), "no SYN was seen");
    assert!(!taken(&segment(0x02, 0, 0)));
    // The first byte has the number behind the SYN.
    for (offset, len, hit) in [(1, 1000, false), (1, 1001, true), (1001, 1, true), (1002, 100, false), (1001, 0, false)]
    {
        assert_eq!(taken(&segment(0x10, offset, len)), hit, "{len} bytes at {offset}");
    }
    // A retransmission counts as the same bytes.
    assert!(taken(&segment(0x18, 1001, 50)));
}

#[test]
fn reordered_frames_follow_those_that_pass() {
    let text = "[[frame]]\nwhen = { nth = 2 }\naction = { reorder = 2 }\n";
    let mut faults = faults(text);
    let out = receive(&mut faults, &numbered(5));
    assert_eq!(out.iter().map(|frame| frame[0]).collect::<Vec<u8>>(), [0, 2, 3, 1, 4]);
    assert!(faults.held.is_empty());
}

#[test]
fn what_is_put_off_comes_when_it_is_due() {
    let mut delayed = faults("[[frame]]\naction = { delay = { ms = 5 } }\n");
    assert!(receive(&mut delayed, &numbered(1)).is_empty());
    assert!(delayed.take_due().is_none());
    std::thread::sleep(delayed.deadline().unwrap().saturating_duration_since(Instant::now()));
    assert!(matches!(delayed.take_due(), Some(Later::Frame(Direction::Received, _))));
    // A reordered frame that nothing follows is not lost.
    let mut reordered = faults("[[frame]]\naction = { reorder = 9 }\n");
    assert!(receive(&mut reordered, &numbered(1)).is_empty());
    std::thread::sleep(reordered.deadline().unwrap().saturating_duration_since(Instant::now()));
    assert!(matches!(reordered.take_due(), Some(Later::Frame(Direction::Received, _))));
    let mut interrupt = faults("[[interrupt]]\nmatch = { vector = 2 }\naction = { delay = { ms = 1 } }\n");
    assert!(interrupt.interrupt(1) && !interrupt.interrupt(2));
    interrupt.forget();
    assert!(interrupt.deadline().is_none());
}

#[test]
fn frames_held_back_are_bounded() {
    let mut faults = faults("[[frame]]\naction = { delay = { ms = 1000000 } }\n");
    let frames = vec![vec![0; 60]; MAX_HELD + 10];
    assert_eq!(receive(&mut faults, &frames).len(), 10);
}

#[test]
fn a_datagram_starts_a_rule_each_time() {
    let text = "[[interrupt]]\nwhen = { after = { datagram = 7001 }, nth = 2 }\naction = \"lose\"\n";
    let mut faults = faults(text);
    let lost = |faults: &mut Faults| (0..4).map(|_| !faults.interrupt(0)).collect::<Vec<bool>>();
    assert_eq!(lost(&mut faults), [false; 4]);
    for _ in 0..2 {
        assert!(faults.frame(Direction::Sent, &datagram(7000)).is_none());
        assert_eq!(lost(&mut faults), [false; 4]);
        faults.frame(Direction::Sent, &datagram(7001));
        assert_eq!(lost(&mut faults), [false, true, false, false]);
    }
}

#[test]
fn commands_fail_stall_and_wait() {
    let text = "
        [[command]]
        match = { opcode = 0x908 }
        when = { nth = 2 }
        action = { fail = { status = 0x0f, syndrome = 0x1234 } }
        [[command]]
        match = { opcode = 0x904 }
        action = \"stall\"
        [[command]]
        when = { after = { commands = 5 } }
        action = { delay = { ms = 1 } }";
    let mut faults = faults(text);
    assert_eq!(faults.command(0x908, 0, 0), None);
    let failure = CommandFailure { status: 0x0f, syndrome: 0x1234 };
    assert_eq!(faults.command(0x908, 0, 0), Some(CommandFault::Fail(failure)));
    assert_eq!(faults.command(0x908, 0, 0), None);
    assert_eq!(faults.command(0x904, 0, 1), Some(CommandFault::Withheld));
    assert!(faults.deadline().is_none());
    assert_eq!(faults.command(0x100, 0, 0), None);
    assert_eq!(faults.command(0x100, 0x4000, 3), Some(CommandFault::Withheld));
    assert!(matches!(faults.later.values().next(), Some(Later::Command { queue: 0x4000, slot: 3 })));
}

#[test]
fn the_device_as_a_whole() {
    let text = "
        [[device]]
        action = { health = { syndrome = 0x0b, fatal = true } }
        [[device]]
        when = { after = { datagram = 9 } }
        action = { link_down = { ms = 1 } }
        [[device]]
        port = 1
        action = \"remove\"";
    let mut faults = faults(text);
    assert_eq!(faults.device(), None);
    faults.command(0x104, 0, 0);
    faults.command(0x104, 0, 0);
    assert_eq!(faults.device(), Some(DeviceFault::Health(Health { syndrome: 0x0b, fatal: true })));
    assert_eq!(faults.device(), None, "once, and nothing of the other port");
    for _ in 0..2 {
        faults.frame(Direction::Received, &datagram(9));
        assert_eq!(faults.device(), Some(DeviceFault::LinkDown));
        assert_eq!(faults.device(), None);
    }
}

#[test]
fn work_requests_completions_and_events() {
    let text = "
        [[wqe]]
        match = { queue = \"icosq\" }
        action = { error = { syndrome = 4, vendor_syndrome = 0x51 } }
        [[completion]]
        match = { queue = \"rq\", number = 17 }
        action = { lie = { byte_count = 70000, flip_owner = true } }
        [[event]]
        match = { type = 0x0a }
        action = { lie = { number = 0xffffff } }";
    let mut faults = faults(text);
    assert_eq!(faults.wqe(QueueKind::Sq, 16), None);
    assert_eq!(faults.wqe(QueueKind::Icosq, 16), Some(Syndrome { syndrome: 4, vendor_syndrome: 0x51 }));
    assert_eq!(faults.completion(QueueKind::Rq, 16), None);
    let lie = CompletionLie { byte_count: Some(70_000), flip_owner: true, ..CompletionLie::default() };
    assert_eq!(faults.completion(QueueKind::Rq, 17), Some(CompletionAction::Lie(lie)));
    assert_eq!(faults.event(0), None);
    assert_eq!(faults.event(0x0a), Some(EventAction::Lie(EventLie { number: 0xff_ffff })));
}
