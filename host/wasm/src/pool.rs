//! The wasm runtime and the room that instances are made in: a pool of slots with address space of their own, whose
//! memory begins as a copy-on-write image of the file's data, so that a new instance costs microseconds. Knows no
//! filter.

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::limits::{MAX_MEMORIES, MAX_TABLES};

/// The most that one memory can have: a slot is as large as 32-bit addresses reach, which saves the guests' bounds
/// checks. It is address space, and no memory until it is used.
const MAX_MEMORY: usize = 1 << 32;
/// The most elements that one table can have.
pub(crate) const MAX_TABLE: usize = 1_000_000;
/// Core instances and tables for each instance of the pool: components have a few of both.
const PARTS: u32 = 4;
/// Bytes of a slot that stay in memory and are written over when an instance is gone; the rest is given back. The kernel
/// says which pages were touched where it can (`PAGEMAP_SCAN`, Linux 6.7), else the first bytes are.
const KEPT: usize = 64 * 1024;
const KEPT_OF_TABLE: usize = 4 * 1024;
/// Bytes of a stack that are left to the host's functions where a guest runs on a stack of its own.
const HOST_STACK: usize = 1536 * 1024;
/// Slots that keep what they had while nobody uses them.
const WARM: u32 = 32;

/// Makes the runtime, with the pool if there is address space for it.
pub(crate) fn runtime(instances: u32, stack: usize) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = settings(stack);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    match wasmtime::Engine::new(&config) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            let engine = wasmtime::Engine::new(&settings(stack))?;
            tracing::warn!(
                "there is no address space for {instances} instances, new instances of filters are slower to make and not \
                 counted: {error:#}"
            );
            Ok(engine)
        }
    }
}

/// A runtime that only compiles, for one that [`runtime`] made: nothing of how instances are made is part of the code.
pub(crate) fn compiler() -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&settings(HOST_STACK))
}

fn settings(stack: usize) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .wasm_memory64(false)
        .max_wasm_stack(stack)
        // The host's functions run on the same stack.
        .async_stack_size(stack + HOST_STACK);
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(instances)
        .total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(PARTS))
        .total_tables(instances.saturating_mul(PARTS))
        .total_stacks(instances)
        .max_memory_size(MAX_MEMORY)
        .max_memories_per_module(u32::try_from(MAX_MEMORIES).unwrap_or(u32::MAX))
        .max_tables_per_module(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX))
        .table_elements(MAX_TABLE)
        .linear_memory_keep_resident(KEPT)
        .table_keep_resident(KEPT_OF_TABLE)
        .max_unused_warm_slots(WARM)
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_address_space_for_a_pool_instances_are_made_one_by_one() {
        let most = runtime(u32::MAX / PARTS, 512 * 1024).unwrap();
        assert!(most.get_pooling_config().is_none());
        let some = runtime(10, 512 * 1024).unwrap();
        assert!(some.get_pooling_config().is_some());
    }
}
