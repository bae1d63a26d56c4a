(module
  (memory (export "memory") 1)
  (memory (export "more") 1)
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
