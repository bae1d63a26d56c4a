//! Nothing: the micro-benchmarks are in `benches`, and `cargo xtask bench --micro` runs them.
