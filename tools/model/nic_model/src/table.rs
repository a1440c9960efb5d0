// SPDX-License-Identifier: GPL-2.0
//! Numbered objects of one kind.

use crate::prm::Status;

/// A table that gives out numbers from `base` on, up to a limit.
#[derive(Debug)]
pub(crate) struct Table<T> {
    base: u32,
    limit: usize,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub(crate) fn new(base: u32, limit: usize) -> Self {
        Self { base, limit, slots: Vec::new(), free: Vec::new() }
    }

    /// Stores an object and returns its number.
    pub(crate) fn insert(&mut self, value: T) -> Result<u32, Status> {
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                *slot = Some(value);
                return Ok(self.base + index);
            }
        }
        if self.slots.len() >= self.limit {
            return Err(Status::NoResources);
        }
        self.slots.push(Some(value));
        // CAST: limits are far below 2^32.
        Ok(self.base + (self.slots.len() - 1) as u32)
    }

    fn index(&self, number: u32) -> Option<usize> {
        number.checked_sub(self.base).map(|index| index as usize)
    }

    pub(crate) fn get(&self, number: u32) -> Result<&T, Status> {
        self.index(number).and_then(|index| self.slots.get(index)?.as_ref()).ok_or(Status::BadResource)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Result<&mut T, Status> {
        self.index(number).and_then(|index| self.slots.get_mut(index)?.as_mut()).ok_or(Status::BadResource)
    }

    pub(crate) fn remove(&mut self, number: u32) -> Result<T, Status> {
        let index = self.index(number).ok_or(Status::BadResource)?;
        let value = self.slots.get_mut(index).and_then(Option::take).ok_or(Status::BadResource)?;
        // CAST: as in `insert`.
        self.free.push(index as u32);
        Ok(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = (self.base..).zip(self.slots.iter());
        numbered.filter_map(|(number, slot)| slot.as_ref().map(|value| (number, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reused_and_bounded() {
        let mut table = Table::new(16, 2);
        assert_eq!(table.insert('a'), Ok(16));
        assert_eq!(table.insert('b'), Ok(17));
        assert_eq!(table.insert('c'), Err(Status::NoResources));
        assert_eq!(table.remove(16), Ok('a'));
        assert_eq!(table.remove(16), Err(Status::BadResource));
        assert_eq!(table.insert('d'), Ok(16));
        assert_eq!(table.get(17), Ok(&'b'));
        assert!(table.get(15).is_err() && table.get(18).is_err());
        assert_eq!(table.iter().count(), 2);
    }
}
