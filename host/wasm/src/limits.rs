//! How much an instance may grow. Bounds come from the operator; this module only keeps count, and remembers the
//! last thing that it refused.

use std::sync::Arc;

use tidegate_core::error::{Limit, Overrun};
use wasmtime::ResourceLimiter;

use crate::meter::{Meter, Share};
use crate::options::Limits;

/// Core instances inside of one component.
pub(crate) const MAX_INSTANCES: usize = 64;
/// Memories inside of one component.
pub(crate) const MAX_MEMORIES: usize = 16;
/// Tables of one instance.
pub(crate) const MAX_TABLES: usize = 64;

/// Counts what an instance holds and says no beyond its bounds.
#[derive(Debug)]
pub(crate) struct Growth {
    memory: usize,
    memory_limit: usize,
    table: usize,
    table_limit: usize,
    refused: Option<(Limit, usize)>,
    pub(crate) share: Share,
}

impl Growth {
    pub(crate) fn new(limits: &Limits, meter: Arc<Meter>) -> Self {
        Growth {
            memory: 0,
            memory_limit: limits.memory,
            table: 0,
            table_limit: limits.table as usize,
            refused: None,
            share: Share::new(meter),
        }
    }

    /// Bytes of linear memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Forgets what was refused: another call begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.refused = None;
    }

    /// What was refused since [`Growth::begin`], if anything was: a likely cause of what went wrong later.
    pub(crate) fn refused(&self) -> Option<Overrun> {
        let (limit, value) = self.refused?;
        let bound = match limit {
            Limit::Table => self.table_limit,
            _ => self.memory_limit,
        };
        Some(Overrun {
            limit,
            bound: bound as u64,
            value: value as u64,
            trap: String::new(),
        })
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let after = self.memory.saturating_add(more);
        if after > self.memory_limit {
            self.refused = Some((Limit::Memory, after));
            return Ok(false);
        }
        self.memory = after;
        self.share.grew(more as u64);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let after = self.table.saturating_add(desired.saturating_sub(current));
        if after > self.table_limit {
            self.refused = Some((Limit::Table, after));
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

    fn growth() -> Growth {
        let limits = Limits {
            memory: 100,
            table: 10,
            ..Limits::default()
        };
        Growth::new(&limits, Arc::default())
    }

    fn refused(growth: &Growth) -> Option<(Limit, u64, u64)> {
        let over = growth.refused()?;
        Some((over.limit, over.bound, over.value))
    }

    #[test]
    fn all_memories_share_one_bound() {
        let mut growth = growth();
        assert!(growth.memory_growing(0, 60, None).unwrap());
        assert!(growth.memory_growing(0, 40, None).unwrap());
        assert_eq!(refused(&growth), None);
        assert!(!growth.memory_growing(40, 41, None).unwrap());
        assert_eq!(refused(&growth), Some((Limit::Memory, 100, 101)));
        assert_eq!(growth.memory(), 100);
        growth.begin();
        assert_eq!(refused(&growth), None);
    }

    #[test]
    fn tables_are_bounded() {
        let mut growth = growth();
        assert!(growth.table_growing(0, 10, None).unwrap());
        assert!(!growth.table_growing(0, 1, None).unwrap());
        assert_eq!(refused(&growth), Some((Limit::Table, 10, 11)));
    }
}
