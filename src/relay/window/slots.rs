//! Two slabs for the window: rows, and the order keys they belong to. The rows of a key form a list
//! through the slab, so that neither a row nor a key costs an allocation of its own for it.

use std::ops::{Index, IndexMut};

use super::Ticket;

const NONE: u32 = u32::MAX;

/// The rows. A ticket is an index with the slot's generation, so that a stale one finds nothing.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    key: u32,
    previous: u32,
    next: u32,
    value: Option<T>,
}

/// The keys, each with the first and the last of its rows.
#[derive(Debug)]
pub(super) struct KeySlots<K> {
    keys: Vec<Option<KeySlot<K>>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct KeySlot<K> {
    head: u32,
    head_generation: u32,
    tail: u32,
    key: K,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<K> Default for KeySlots<K> {
    fn default() -> Self {
        KeySlots {
            keys: Vec::new(),
            free: Vec::new(),
        }
    }
}

fn ticket(index: u32, generation: u32) -> Ticket {
    Ticket(u64::from(generation) << 32 | u64::from(index))
}

fn index_of(ticket: Ticket) -> u32 {
    (ticket.0 & u64::from(u32::MAX)) as u32
}

impl<T> Slots<T> {
    fn slot(&self, ticket: Ticket) -> Option<&Slot<T>> {
        let slot = self.slots.get(index_of(ticket) as usize)?;
        (u64::from(slot.generation) == ticket.0 >> 32 && slot.value.is_some()).then_some(slot)
    }

    pub fn get(&self, ticket: Ticket) -> Option<&T> {
        self.slot(ticket)?.value.as_ref()
    }

    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        let slot = self.slots.get_mut(index_of(ticket) as usize)?;
        if u64::from(slot.generation) != ticket.0 >> 32 {
            return None;
        }
        slot.value.as_mut()
    }

    /// The key of a row that is in the slab.
    pub fn key_of(&self, ticket: Ticket) -> u32 {
        self.slots[index_of(ticket) as usize].key
    }

    /// The row of the same key that comes after.
    pub fn next_of_key(&self, ticket: Ticket) -> Option<Ticket> {
        self.at(self.slot(ticket)?.next)
    }

    /// The row of the same key that comes before.
    pub fn previous_of_key(&self, ticket: Ticket) -> Option<&T> {
        self.get(self.at(self.slot(ticket)?.previous)?)
    }

    fn at(&self, index: u32) -> Option<Ticket> {
        let slot = self.slots.get(index as usize)?;
        Some(ticket(index, slot.generation))
    }

    /// Every row, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let value = slot.value.as_ref()?;
            Some((ticket(index as u32, slot.generation), value))
        })
    }

    /// Appends a row to its key's list.
    pub fn push<K>(&mut self, key: u32, keys: &mut KeySlots<K>, value: T) -> Ticket {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                key: NONE,
                previous: NONE,
                next: NONE,
                value: None,
            });
            (self.slots.len() - 1) as u32
        });
        let list = keys.slot_mut(key);
        let previous = list.tail;
        list.tail = index;
        let slot = &mut self.slots[index as usize];
        slot.key = key;
        slot.previous = previous;
        slot.next = NONE;
        slot.value = Some(value);
        let ticket = ticket(index, slot.generation);
        match self.slots.get_mut(previous as usize) {
            Some(previous) => previous.next = index,
            None => {
                let list = keys.slot_mut(key);
                list.head = index;
                list.head_generation = (ticket.0 >> 32) as u32;
            }
        }
        ticket
    }

    /// Takes a row out of the slab and of its key's list.
    pub fn remove<K>(&mut self, ticket: Ticket, keys: &mut KeySlots<K>) -> Option<T> {
        self.slot(ticket)?;
        let index = index_of(ticket);
        let slot = &mut self.slots[index as usize];
        let value = slot.value.take();
        slot.generation = slot.generation.wrapping_add(1);
        let (key, previous, next) = (slot.key, slot.previous, slot.next);
        if let Some(next) = self.slots.get_mut(next as usize) {
            next.previous = previous;
        }
        if let Some(previous) = self.slots.get_mut(previous as usize) {
            previous.next = next;
        }
        let next_generation = self
            .slots
            .get(next as usize)
            .map_or(0, |slot| slot.generation);
        let list = keys.slot_mut(key);
        if list.head == index {
            list.head = next;
            list.head_generation = next_generation;
        }
        if list.tail == index {
            list.tail = previous;
        }
        self.free.push(index);
        value
    }
}

impl<K> KeySlots<K> {
    pub fn insert(&mut self, key: K) -> u32 {
        let slot = Some(KeySlot {
            head: NONE,
            head_generation: 0,
            tail: NONE,
            key,
        });
        match self.free.pop() {
            Some(index) => {
                self.keys[index as usize] = slot;
                index
            }
            None => {
                self.keys.push(slot);
                (self.keys.len() - 1) as u32
            }
        }
    }

    pub fn remove(&mut self, index: u32) {
        self.keys[index as usize] = None;
        self.free.push(index);
    }

    /// Every key with its index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &K)> {
        let keys = self.keys.iter().enumerate();
        keys.filter_map(|(index, slot)| Some((index as u32, &slot.as_ref()?.key)))
    }

    /// Every key.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut K> {
        let keys = self.keys.iter_mut().flatten();
        keys.map(|slot| &mut slot.key)
    }

    /// The first row of the key.
    pub fn head(&self, index: u32) -> Option<Ticket> {
        let slot = self.keys[index as usize].as_ref()?;
        (slot.head != NONE).then(|| ticket(slot.head, slot.head_generation))
    }

    fn slot_mut(&mut self, index: u32) -> &mut KeySlot<K> {
        // Invariant: rows name only keys that are in the slab; the window removes a key with its last row.
        match &mut self.keys[index as usize] {
            Some(slot) => slot,
            None => unreachable!("a row names a key that has left the window"),
        }
    }
}

impl<K> Index<u32> for KeySlots<K> {
    type Output = K;

    fn index(&self, index: u32) -> &K {
        match &self.keys[index as usize] {
            Some(slot) => &slot.key,
            None => unreachable!("the index of a key that has left the window"),
        }
    }
}

impl<K> IndexMut<u32> for KeySlots<K> {
    fn index_mut(&mut self, index: u32) -> &mut K {
        &mut self.slot_mut(index).key
    }
}
