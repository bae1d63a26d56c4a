(module
  ;; A memory whose addresses have 64 bits.
  (memory (export "memory") i64 1)
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
