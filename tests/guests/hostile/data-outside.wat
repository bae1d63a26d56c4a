(module
  ;; Data that would lie outside of its memory.
  (memory (export "memory") 1)
  (data (i32.const 65535) "too long")
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
