(module
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
