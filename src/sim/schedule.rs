//! What happens when: a heap of events and one counter, so that equal times have an order and a run has one story.

use super::observation::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events in the order of their time, then of their making.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    // The heap holds numbers only, so that sifting moves 24 bytes and not an event.
    heap: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    made: u64,
}

impl<E> Schedule<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), made: 0 }
    }

    pub(super) fn add(&mut self, at: Instant, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot as usize] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                u32::try_from(self.events.len() - 1).expect("fewer events than addresses")
            }
        };
        self.made += 1;
        self.heap.push(Reverse((at, self.made, slot)));
    }

    pub(super) fn next(&mut self) -> Option<(Instant, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        let event = self.events[slot as usize].take().expect("a slot is freed with its event");
        self.free.push(slot);
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_their_making() {
        let mut schedule = Schedule::new();
        for (at, name) in [(5, "e"), (1, "a"), (3, "c"), (3, "d"), (1, "b")] {
            schedule.add(Instant(at), name);
        }
        let first = schedule.next();
        assert_eq!(first, Some((Instant(1), "a")));
        schedule.add(Instant(2), "between");
        let order: Vec<_> = std::iter::from_fn(|| schedule.next()).map(|(_, name)| name).collect();
        assert_eq!(order, ["b", "between", "c", "d", "e"]);
    }
}
