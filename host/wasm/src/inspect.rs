//! What can be said of a file without running it.

use std::fmt;

use serde::Serialize;

use crate::abi;
use crate::bounds;
use crate::detect::{self, ItemType};
use crate::manifest::Manifest;

/// Reads a file and says what it is. Never fails: a file that is no filter is a finding too.
pub fn inspect(bytes: &[u8]) -> Report {
    let mut report = Report {
        kind: String::new(),
        filter: false,
        size: bytes.len(),
        contract: None,
        phases: Vec::new(),
        imports: Vec::new(),
        capabilities: Vec::new(),
        memory: None,
        manifest: None,
    };
    let shape = match detect::read(bytes, bounds::FILE, true) {
        Ok(shape) => shape,
        Err(error) => {
            report.kind = not_a_filter(&error);
            return report;
        }
    };
    report.phases = shape
        .phases()
        .iter()
        .map(|phase| phase.name().to_owned())
        .collect();
    report.imports = shape
        .imports
        .iter()
        .map(|import| match (&import.ty, import.name.as_str()) {
            (_, "") => import.module.clone(),
            (ItemType::Function(_) | ItemType::Lifted, name) => {
                format!("{} {name}", import.module)
            }
            (ItemType::Memory, name) => format!("{} {name} (a memory)", import.module),
            (ItemType::Other(what), name) => format!("{} {name} ({what})", import.module),
        })
        .collect();
    report.memory = (shape.memory.count > 0).then_some(MemoryRange {
        min: shape.memory.min,
        max: shape.memory.max,
    });
    report.kind = match abi::check(&shape) {
        Ok(checked) => {
            report.filter = true;
            report.contract = Some(checked.contract());
            report.capabilities = checked
                .capabilities()
                .into_iter()
                .map(str::to_owned)
                .collect();
            shape.kind.to_string()
        }
        Err(error) => not_a_filter(&error),
    };
    report.manifest = shape.manifest;
    report
}

fn not_a_filter(error: &crate::error::LoadError) -> String {
    match error {
        crate::error::LoadError::NotAFilter(reason) => format!("not a filter because {reason}"),
        other => format!("not a filter because {other}"),
    }
}

/// What [`inspect`] found. `Display` prints it as aligned text.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// `native core`, `native component`, or `not a filter because ..`.
    pub kind: String,
    /// Whether this version can run it.
    pub filter: bool,
    /// The file's size in bytes.
    pub size: usize,
    /// The version of the contract that it was made for.
    pub contract: Option<String>,
    /// The callbacks that it exports, `configure` included.
    pub phases: Vec<String>,
    /// What it imports: the interface, and the function.
    pub imports: Vec<String>,
    /// What it will have to be granted: `http`, `store`, `env`.
    pub capabilities: Vec<String>,
    /// The memory that it begins with and may grow to.
    pub memory: Option<MemoryRange>,
    /// What it says of itself.
    pub manifest: Option<Manifest>,
}

/// Bytes of linear memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryRange {
    /// At the beginning, all memories together.
    pub min: u64,
    /// The most that the file itself allows; none: the operator's limit alone.
    pub max: Option<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "kind", &self.kind)?;
        line(f, "size", &Size(self.size as u64).to_string())?;
        if let Some(contract) = &self.contract {
            line(f, "contract", contract)?;
        }
        lines(f, "phases", &self.phases, "none")?;
        lines(f, "imports", &by_interface(&self.imports), "none")?;
        if self.filter {
            lines(f, "needs grants", &self.capabilities, "none")?;
        }
        if let Some(memory) = self.memory {
            let max = match memory.max {
                Some(max) => format!("up to {}", Size(max)),
                None => "up to the operator's limit".to_owned(),
            };
            line(f, "memory", &format!("{}, {max}", Size(memory.min)))?;
        }
        if let Some(manifest) = &self.manifest {
            let about = [
                ("name", &manifest.name),
                ("version", &manifest.version),
                ("description", &manifest.description),
            ];
            for (label, value) in about {
                if !value.is_empty() {
                    line(f, label, value)?;
                }
            }
            for wanted in &manifest.capabilities {
                let how = if wanted.optional {
                    " (may be left out)"
                } else {
                    ""
                };
                line(f, "wants", &format!("{}{how}: {}", wanted.kind, wanted.why))?;
            }
            if let Some(schema) = &manifest.config_schema {
                line(f, "configuration", &schema.to_string())?;
            }
        }
        Ok(())
    }
}

/// One line for each interface, with its functions behind it.
fn by_interface(imports: &[String]) -> Vec<String> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for import in imports {
        let (interface, function) = import.split_once(' ').unwrap_or((import, ""));
        match lines.iter_mut().find(|(known, _)| *known == interface) {
            Some((_, functions)) => {
                functions.push_str(", ");
                functions.push_str(function);
            }
            None => lines.push((interface, function.to_owned())),
        }
    }
    let lines = lines.into_iter().map(|(interface, functions)| {
        if functions.is_empty() {
            interface.to_owned()
        } else {
            format!("{interface}: {functions}")
        }
    });
    lines.collect()
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, value: &str) -> fmt::Result {
    // A file's own words must not be able to write to the terminal.
    let value: String = value
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    writeln!(f, "{label:<14}{value}")
}

fn lines(f: &mut fmt::Formatter<'_>, label: &str, values: &[String], none: &str) -> fmt::Result {
    if values.is_empty() {
        return line(f, label, none);
    }
    for (index, value) in values.iter().enumerate() {
        line(f, if index == 0 { label } else { "" }, value)?;
    }
    Ok(())
}

/// A number of bytes, with a unit that one can imagine.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        match self.0 {
            bytes if bytes >= MIB => write!(f, "{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB),
            bytes if bytes >= KIB => write!(f, "{}.{} KiB", bytes / KIB, bytes % KIB * 10 / KIB),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}
