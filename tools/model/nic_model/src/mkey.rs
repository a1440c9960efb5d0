// SPDX-License-Identifier: GPL-2.0
//! Memory keys: what a data segment may reach.
//!
//! PA keys pass DMA addresses through. KLM keys are a list of pieces, each
//! naming a PA key; addresses in them count from the key's start address.

use thiserror::Error;
use vfio_user_server::{GuestMemory, MemoryError};

use crate::prm::{cmd, mkey, Status};
use crate::table::Table;

/// Memory keys of one port; the first index keeps clear of the key that
/// ends scatter lists.
const FIRST_INDEX: u32 = 0x10;
const MAX_KEYS: usize = 1 << 17;

/// One piece of a KLM list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Klm {
    /// Bytes in this piece.
    pub(crate) count: u32,
    /// Key that the address belongs to.
    pub(crate) key: u32,
    /// Address under that key.
    pub(crate) address: u64,
}

impl Klm {
    /// Reads an entry of a list.
    pub(crate) fn parse(entry: &[u8]) -> Self {
        Self {
            count: mkey::KLM_COUNT.get32(entry),
            key: mkey::KLM_KEY.get32(entry),
            address: mkey::KLM_ADDR.get(entry),
        }
    }
}

/// How a key translates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Addresses are DMA addresses.
    Physical,
    /// A list of at most `max` pieces.
    Klm {
        /// The list.
        entries: Vec<Klm>,
        /// Room that the key was created with.
        max: usize,
    },
}

/// A memory key.
#[derive(Clone, Debug)]
pub(crate) struct Mkey {
    /// Low byte of the key, chosen by the driver.
    pub(crate) low: u8,
    /// Protection domain.
    pub(crate) pd: u32,
    /// Not usable until a UMR makes it so.
    pub(crate) free: bool,
    /// UMR may change it.
    pub(crate) umr_enabled: bool,
    /// Local write allowed.
    pub(crate) writable: bool,
    /// First address.
    pub(crate) start: u64,
    /// Length in bytes from `start`; `None` is all of the address space.
    pub(crate) len: Option<u64>,
    /// Changes with every UMR that makes the key usable.
    pub(crate) generation: u64,
    /// Translation.
    pub(crate) access: Access,
}

/// Why an access through a key failed.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// No such key, wrong low byte, free, or of another protection domain.
    #[error("key {0:#x} is not valid here")]
    Key(u32),
    /// Outside the key's range, or longer than its list.
    #[error("access beyond key {0:#x}")]
    Bounds(u32),
    /// The key does not allow writes.
    #[error("key {0:#x} is read-only")]
    ReadOnly(u32),
    /// The memory behind it is not there.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// All keys of a port.
pub(crate) struct Mkeys {
    table: Table<Mkey>,
}

impl Mkeys {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(FIRST_INDEX, MAX_KEYS) }
    }

    /// CREATE_MKEY; returns the key's index.
    pub(crate) fn create(&mut self, input: &[u8]) -> Result<u32, Status> {
        let context = input.get(cmd::SHORT_CONTEXT..cmd::PAS).ok_or(Status::BadInputLength)?;
        let access = match mkey::ACCESS_MODE.get(context) {
            mkey::ACCESS_PA => Access::Physical,
            mkey::ACCESS_KLM => {
                let max = mkey::TRANSLATIONS.get(context);
                if max > 1 << crate::caps::LOG_MAX_KLM_LIST {
                    return Err(Status::ExceedLimit);
                }
                // CAST: at most 128.
                let max = max as usize;
                let actual = mkey::TRANSLATIONS_ACTUAL.get(input) as usize;
                if actual > max {
                    return Err(Status::BadParam);
                }
                let bytes = actual * mkey::KLM_SIZE;
                let list = input.get(cmd::PAS..cmd::PAS + bytes).ok_or(Status::BadInputLength)?;
                Access::Klm { entries: list.chunks_exact(mkey::KLM_SIZE).map(Klm::parse).collect(), max }
            }
            _ => return Err(Status::BadParam),
        };
        let key = Mkey {
            // CAST: an 8-bit field.
            low: mkey::KEY_7_0.get(context) as u8,
            pd: mkey::PD.get32(context),
            free: mkey::FREE.is_set(context),
            umr_enabled: mkey::UMR_EN.is_set(context),
            writable: mkey::LW.is_set(context),
            start: mkey::START_ADDR.get(context),
            len: (!mkey::LENGTH64.is_set(context)).then(|| mkey::LEN.get(context)),
            generation: 0,
            access,
        };
        self.table.insert(key)
    }

    pub(crate) fn destroy(&mut self, index: u32) -> Result<(), Status> {
        self.table.remove(index).map(|_| ())
    }

    /// The key object, whatever its state.
    pub(crate) fn find(&self, key: u32) -> Result<&Mkey, KeyError> {
        self.table.get(key >> 8).ok().filter(|mkey| u32::from(mkey.low) == key & 0xff).ok_or(KeyError::Key(key))
    }

    /// The key object for a UMR, whatever its state.
    pub(crate) fn find_mut(&mut self, key: u32) -> Result<&mut Mkey, KeyError> {
        let error = KeyError::Key(key);
        self.table.get_mut(key >> 8).ok().filter(|mkey| u32::from(mkey.low) == key & 0xff).ok_or(error)
    }

    /// Calls `f` with each DMA address and length behind a range of a key.
    fn translate(
        &self,
        (key, pd): (u32, Option<u32>),
        address: u64,
        len: usize,
        write: bool,
        f: &mut dyn FnMut(u64, usize) -> Result<(), MemoryError>,
    ) -> Result<(), KeyError> {
        let mkey = self.find(key)?;
        if mkey.free || pd.is_some_and(|pd| pd != mkey.pd) {
            return Err(KeyError::Key(key));
        }
        if write && !mkey.writable {
            return Err(KeyError::ReadOnly(key));
        }
        let offset = match mkey.len {
            None => address,
            Some(limit) => {
                let offset = address.checked_sub(mkey.start).ok_or(KeyError::Bounds(key))?;
                offset.checked_add(len as u64).filter(|end| *end <= limit).ok_or(KeyError::Bounds(key))?;
                offset
            }
        };
        let entries = match &mkey.access {
            Access::Physical => return Ok(f(address, len)?),
            Access::Klm { entries, .. } => entries,
        };
        let mut skip = offset;
        let mut left = len;
        for entry in entries {
            if left == 0 {
                break;
            }
            let count = u64::from(entry.count);
            if skip >= count {
                skip -= count;
                continue;
            }
            let inner = self.find(entry.key)?;
            // One level only: a list of lists could be a loop.
            if inner.access != Access::Physical {
                return Err(KeyError::Key(entry.key));
            }
            let start = entry.address.checked_add(skip).ok_or(KeyError::Bounds(entry.key))?;
            // CAST: limited by `left`, a usize.
            let take = (count - skip).min(left as u64) as usize;
            self.translate((entry.key, pd), start, take, write, f)?;
            left -= take;
            skip = 0;
        }
        if left != 0 {
            return Err(KeyError::Bounds(key));
        }
        Ok(())
    }

    /// Appends `len` bytes at an address of a key to `data`.
    pub(crate) fn read_append(
        &self,
        memory: &GuestMemory,
        key: (u32, Option<u32>),
        address: u64,
        len: usize,
        data: &mut Vec<u8>,
    ) -> Result<(), KeyError> {
        self.translate(key, address, len, false, &mut |dma, len| memory.read_append(dma, len, data))
    }

    /// Writes at an address of a key.
    pub(crate) fn write(
        &self,
        memory: &GuestMemory,
        key: (u32, Option<u32>),
        address: u64,
        data: &[u8],
    ) -> Result<(), KeyError> {
        let mut done = 0;
        self.translate(key, address, data.len(), true, &mut |dma, len| {
            let piece = data.get(done..done + len).unwrap_or_default();
            done += len;
            memory.write(dma, piece)
        })
    }
}
