// SPDX-License-Identifier: GPL-2.0

//! The PCI driver.

use kernel::{
    device::Core,
    irq,
    pci,
    prelude::*,
    sync::Arc, //
};

use crate::{
    eq::EventQueue,
    glue::{
        self,
        Function,
        Interrupt,
        Netdev,
        NetdevHandle,
        Resources, //
    },
    hca::Hca,
    netdev::{
        self,
        Mlx5Netdev, //
    },
    steering::Steering,
    wire::{
        eqe::{
            self,
            Eqe, //
        },
        Layout, //
    },
};

/// The PCI driver.
pub(crate) struct Mlx5;

kernel::pci_device_table!(
    PCI_TABLE,
    <Mlx5 as pci::Driver>::IdInfo,
    [(glue::pci_device_id(0x1234, 0x10dd), ())]
);

/// Handler of the interrupt of everything but completions.
pub(crate) struct AsyncEvents {
    eq: Arc<EventQueue>,
    hca: Arc<Hca>,
    netdev: NetdevHandle<Mlx5Netdev>,
}

impl AsyncEvents {
    /// The queue of the events.
    pub(crate) fn eq(&self) -> &EventQueue {
        &self.eq
    }
}

/// Commands are waited for by events. Dropping this has them polled again.
struct CommandEvents(Arc<Hca>);

impl CommandEvents {
    fn new(hca: &Arc<Hca>) -> Self {
        hca.cmd().use_events(true);
        Self(hca.clone())
    }
}

impl Drop for CommandEvents {
    fn drop(&mut self) {
        self.0.cmd().use_events(false);
    }
}

impl irq::Handler for AsyncEvents {
    fn handle(&self) -> irq::IrqReturn {
        self.eq.process(
            |event| match (event.get32(Eqe::TYPE), event.get32(Eqe::SUB_TYPE)) {
                (eqe::TYPE_COMMAND, _) => {
                    self.hca.cmd().completed(event.get32(Eqe::COMMANDS));
                }
                // The interface may be down, or about to go: what there is to do is found out later.
                (eqe::TYPE_PORT_CHANGE, eqe::PORT_ACTIVE | eqe::PORT_DOWN) => {
                    netdev::link_changed(self.netdev.get());
                }
                _ => {}
            },
        );
        irq::IrqReturn::Handled
    }
}

/// A function that the driver drives. Fields are dropped in order.
pub(crate) struct Instance {
    _command_events: CommandEvents,
    _netdev: Netdev<Mlx5Netdev>,
}

impl Instance {
    fn new(resources: Resources) -> Result<Self> {
        let hca = Arc::new(Hca::new(resources.dev.clone(), resources.bar)?, GFP_KERNEL)?;
        let steering = Steering::new(&hca)?;
        let eq = Arc::new(
            EventQueue::new(&hca, 0, 1 << eqe::TYPE_PORT_CHANGE | 1 << eqe::TYPE_COMMAND)?,
            GFP_KERNEL,
        )?;
        let channels = netdev::max_channels(&hca, &resources.vectors);
        let config = netdev::config(&hca, channels)?;
        let data = netdev::Data::new(&hca, &resources.vectors, &steering)?;
        let netdev = Netdev::<Mlx5Netdev>::new(&resources.dev, &config, data)?;
        netdev::spread_senders(&netdev, channels);
        let async_events = Interrupt::new(
            &resources.vectors,
            0,
            Ok(AsyncEvents {
                eq,
                hca: hca.clone(),
                netdev: netdev.handle(),
            }),
        )?;
        async_events.handler().eq.arm();
        netdev.data().set_async_events(async_events);
        netdev::start_service(&netdev);
        dev_info!(resources.dev.get(), "{}: {:?}\n", netdev.name(), hca.caps());
        Ok(Self {
            _command_events: CommandEvents::new(&hca),
            _netdev: netdev,
        })
    }
}

impl pci::Driver for Mlx5 {
    type IdInfo = ();
    type Data<'bound> = Function<'bound, Instance>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        // One vector for events that are not completions, and one for each channel.
        Function::new(pdev, 1 + glue::online_cpus(), Instance::new)
    }
}
