(module
  (import "tidegate:filter/clock@0.1.0" "wall" (func (result i32)))
  (memory (export "memory") 1)
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
