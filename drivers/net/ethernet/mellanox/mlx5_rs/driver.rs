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
struct AsyncEvents {
    eq: Arc<EventQueue>,
    netdev: NetdevHandle,
}

impl irq::Handler for AsyncEvents {
    fn handle(&self) -> irq::IrqReturn {
        self.eq.process(|event| {
            if event.get32(Eqe::TYPE) != eqe::TYPE_PORT_CHANGE {
                return;
            }
            match event.get32(Eqe::SUB_TYPE) {
                eqe::PORT_ACTIVE => self.netdev.get().carrier_on(),
                eqe::PORT_DOWN => self.netdev.get().carrier_off(),
                _ => {}
            }
        });
        irq::IrqReturn::Handled
    }
}

/// A function that the driver drives. Fields are dropped in order.
pub(crate) struct Instance {
    _async_events: Interrupt<AsyncEvents>,
    _netdev: Netdev<Mlx5Netdev>,
}

impl Instance {
    fn new(resources: Resources) -> Result<Self> {
        let hca = Arc::new(Hca::new(resources.dev.clone(), resources.bar)?, GFP_KERNEL)?;
        let steering = Steering::new(&hca)?;
        let eq = Arc::new(
            EventQueue::new(&hca, 0, 1 << eqe::TYPE_PORT_CHANGE)?,
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
                netdev: netdev.handle(),
            }),
        )?;
        async_events.handler().eq.arm();
        dev_info!(resources.dev.get(), "{}: {:?}\n", netdev.name(), hca.caps());
        Ok(Self {
            _async_events: async_events,
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
