(module
  ;; Wants 4 GiB to begin with.
  (memory (export "memory") 65536)
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
