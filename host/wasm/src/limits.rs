//! How much an instance may grow. Bounds come from the operator; this module only keeps count.

use wasmtime::ResourceLimiter;

/// Entries of all tables of one instance together, 8 to 16 bytes each.
const MAX_TABLE_ENTRIES: usize = 100_000;
/// Core instances inside of one component.
const MAX_INSTANCES: usize = 64;
/// Memories inside of one component.
const MAX_MEMORIES: usize = 16;
/// Tables of one instance.
const MAX_TABLES: usize = 64;

/// Counts what an instance holds and says no beyond its bounds.
#[derive(Debug)]
pub(crate) struct Growth {
    memory: usize,
    memory_limit: usize,
    table: usize,
    refused: bool,
}

impl Growth {
    pub(crate) fn new(memory_limit: usize) -> Self {
        Growth {
            memory: 0,
            memory_limit,
            table: 0,
            refused: false,
        }
    }

    /// The memory bound in bytes, if the guest ever ran into it: a likely cause of what went wrong later.
    pub(crate) fn hit(&self) -> Option<usize> {
        self.refused.then_some(self.memory_limit)
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let after = self.memory.saturating_add(desired.saturating_sub(current));
        if after > self.memory_limit {
            self.refused = true;
            return Ok(false);
        }
        self.memory = after;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let after = self.table.saturating_add(desired.saturating_sub(current));
        if after > MAX_TABLE_ENTRIES {
            return Ok(false);
        }
        self.table = after;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_share_one_bound() {
        let mut growth = Growth::new(100);
        assert!(growth.memory_growing(0, 60, None).unwrap());
        assert!(growth.memory_growing(0, 40, None).unwrap());
        assert_eq!(growth.hit(), None);
        assert!(!growth.memory_growing(40, 41, None).unwrap());
        assert_eq!(growth.hit(), Some(100));
    }

    #[test]
    fn tables_are_bounded() {
        let mut growth = Growth::new(0);
        assert!(growth.table_growing(0, MAX_TABLE_ENTRIES, None).unwrap());
        assert!(!growth.table_growing(0, 1, None).unwrap());
    }
}
