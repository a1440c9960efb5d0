// SPDX-License-Identifier: GPL-2.0
//! The NIC as a process that plugs into QEMU's vfio-user-pci.
//!
//! Each `--port` is one PCI device behind one socket. Wires say where the
//! ports lead; two ports without a wire are connected to each other.

#![deny(unsafe_code)]

mod args;
mod capture;
mod link;
mod stream;
mod tap;

use std::error::Error;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::thread;

use clap::Parser;
use nic_model::{Config, Frontend, Inbox, Plan, PortWire, Unplugged, Wire};
use nix::sys::signal::{SigSet, Signal};
use vfio_user_server::Bus;

use args::{Args, PortArg, WireArg};
use capture::Capture;

/// What the main thread waits for.
enum Message {
    /// A termination signal.
    Stop,
    /// A client of this port has closed its connection, or another one has connected.
    Client { port: usize, connected: bool },
}

/// A port that listens.
struct Listening {
    listener: UnixListener,
    path: PathBuf,
    frontend: Frontend,
    bus: Bus,
    name: String,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    // Blocked here, before there are threads to inherit it, so that only the
    // waiting thread sees these signals.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let (sender, receiver) = channel();
    let stop = sender.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.wait().is_ok() {
            // Fails only when main is on its way out already.
            let _ = stop.send(Message::Stop);
        }
    })?;

    let inboxes: Vec<Arc<Inbox>> = args.ports.iter().map(|_| Inbox::new()).collect();
    let names: Vec<String> = (0..inboxes.len()).map(|index| format!("port{index}")).collect();
    if let Some(port) = args.capture_ports.iter().find(|port| **port >= inboxes.len()) {
        return Err(format!("--capture-port names port {port}, which does not exist").into());
    }
    let capture = args.capture.as_ref().map(|path| Capture::create(path, &names)).transpose()?;
    let faults = args.faults.as_deref().map(|path| read_plan(path, &inboxes)).transpose()?.unwrap_or_default();
    let wires = make_wires(args, &inboxes)?;
    let mut workers = Vec::new();
    let mut ports = Vec::new();
    for (index, ((port, inbox), wire)) in args.ports.iter().zip(&inboxes).zip(wires).enumerate() {
        let name = names.get(index).cloned().unwrap_or_default();
        let wanted = args.capture_ports.is_empty() || args.capture_ports.contains(&index);
        // CAST: one per command line argument.
        let observer = capture.as_ref().filter(|_| wanted).map(|capture| capture.observer(index as u32));
        let bus = Bus::new(nic_model::pci::VECTORS);
        let config = Config {
            name: name.clone(),
            mac: port.mac_or_default(index),
            // CAST: as above.
            index: index as u32,
            faults: faults.clone(),
        };
        workers.push(nic_model::spawn(&config, bus.clone(), Arc::clone(inbox), wire, observer)?);
        ports.push(listen(port, name, Arc::clone(inbox), bus)?);
    }
    let paths: Vec<PathBuf> = ports.iter().map(|port| port.path.clone()).collect();
    // What each port's client does: nothing yet, or whether it is connected.
    let mut clients = vec![None; ports.len()];
    for (index, port) in ports.into_iter().enumerate() {
        let sender = sender.clone();
        thread::Builder::new().name(port.name.clone()).spawn(move || serve(index, port, &sender))?;
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;

    while let Ok(message) = receiver.recv() {
        match message {
            Message::Stop => break,
            Message::Client { port, connected } => {
                if let Some(client) = clients.get_mut(port) {
                    *client = Some(connected);
                }
            }
        }
        if args.once && clients.iter().all(|client| *client == Some(false)) {
            break;
        }
    }
    for inbox in &inboxes {
        inbox.close();
    }
    for worker in workers {
        if worker.join().is_err() {
            log::error!("a worker has panicked");
        }
    }
    if let Some(capture) = capture {
        capture.finish();
    }
    for path in paths {
        if let Err(error) = std::fs::remove_file(&path) {
            log::warn!("{}: {error}", path.display());
        }
    }
    Ok(())
}

/// The fault plan for these ports.
fn read_plan(path: &Path, inboxes: &[Arc<Inbox>]) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // CAST: one per command line argument.
    Plan::parse(&text, inboxes.len() as u32).map_err(|error| format!("{}: {error}", path.display()))
}

/// One wire per port, in the order of the ports.
fn make_wires(args: &Args, inboxes: &[Arc<Inbox>]) -> Result<Vec<Box<dyn Wire>>, Box<dyn Error>> {
    let mut wires: Vec<Option<Box<dyn Wire>>> = inboxes.iter().map(|_| None).collect();
    let back_to_back = [WireArg::Ports(0, 1)];
    let specs = if args.wires.is_empty() && inboxes.len() == 2 { &back_to_back[..] } else { &args.wires };
    let mut plug = |port: usize, wire: Box<dyn Wire>| match wires.get_mut(port) {
        Some(slot @ None) => {
            *slot = Some(wire);
            Ok(())
        }
        Some(_) => Err(format!("port {port} has more than one wire")),
        None => Err(format!("--wire names port {port}, which does not exist")),
    };
    let inbox =
        |port: usize| inboxes.get(port).ok_or_else(|| format!("--wire names port {port}, which does not exist"));
    for spec in specs {
        match spec {
            WireArg::Ports(a, b) => {
                let ends = inboxes.get(*a).zip(inboxes.get(*b)).filter(|_| a != b);
                let (first, second) = ends.ok_or_else(|| format!("--wire {a}-{b} needs two existing ports"))?;
                plug(*a, Box::new(PortWire::new(Arc::clone(second))))?;
                plug(*b, Box::new(PortWire::new(Arc::clone(first))))?;
            }
            WireArg::Connect(port, address) => {
                let wire = stream::connect(address, inbox(*port)?).map_err(|error| format!("{address:?}: {error}"))?;
                plug(*port, wire)?;
            }
            WireArg::Listen(port, address) => {
                let wire = stream::listen(address, inbox(*port)?).map_err(|error| format!("{address:?}: {error}"))?;
                plug(*port, wire)?;
            }
            WireArg::Tap(port, name) => {
                let wire = tap::attach(name, inbox(*port)?).map_err(|error| format!("tap {name}: {error}"))?;
                plug(*port, wire)?;
            }
        }
    }
    Ok(wires.into_iter().map(|wire| wire.unwrap_or_else(|| Box::new(Unplugged))).collect())
}

fn listen(port: &PortArg, name: String, inbox: Arc<Inbox>, bus: Bus) -> Result<Listening, Box<dyn Error>> {
    let listener = stream::bind_unix(&port.path).map_err(|error| format!("{}: {error}", port.path.display()))?;
    Ok(Listening { listener, path: port.path.clone(), frontend: Frontend::new(inbox), bus, name })
}

/// Serves one client after the other.
fn serve(index: usize, mut port: Listening, sender: &Sender<Message>) {
    let tell = |connected| sender.send(Message::Client { port: index, connected }).is_ok();
    loop {
        match port.listener.accept() {
            Ok((stream, _)) => {
                log::debug!("{}: client connected", port.name);
                if !tell(true) {
                    return;
                }
                port.frontend.plug();
                if let Err(error) = vfio_user_server::serve(stream, &mut port.frontend, &port.bus) {
                    log::warn!("{}: {error}", port.name);
                }
                log::debug!("{}: client gone", port.name);
                if !tell(false) {
                    return;
                }
            }
            Err(error) => {
                log::error!("{}: accept: {error}", port.name);
                return;
            }
        }
    }
}
