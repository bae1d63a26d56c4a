//! Which pages of a stretch of this process's memory are not what was mapped there any more: asks the kernel (`PAGEMAP_SCAN`,
//! Linux 6.7). Knows nothing of what the memory is for.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;

/// What pages are counted in here. The kernel's own are as large, or several of these.
pub(crate) const PAGE: usize = 4096;

/// Stretches that one question finds.
const STRETCHES: usize = 32;

/// `PAGEMAP_SCAN`: `_IOWR('f', 16, struct pm_scan_arg)`.
const SCAN: libc::Ioctl = 0xC060_6610_u32 as libc::Ioctl;
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_ZERO: u64 = 1 << 5;

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// The kernel's answers.
#[derive(Debug)]
pub(crate) struct Touched(File);

impl Touched {
    /// None where the kernel does not tell.
    pub(crate) fn get() -> Option<&'static Self> {
        static ONE: OnceLock<Option<Touched>> = OnceLock::new();
        ONE.get_or_init(|| {
            let touched = Touched(File::open("/proc/self/pagemap").ok()?);
            touched.can_tell().then_some(touched)
        })
        .as_ref()
    }

    /// Whether it tells of a page that was written, and not of its neighbours that were not.
    fn can_tell(&self) -> bool {
        // So much is not taken from memory that was used before.
        let mut probe = vec![0_u8; 4 << 20];
        let middle = probe.len() / 2;
        if let Some(byte) = probe.get_mut(middle) {
            *byte = 1;
        }
        let (start, length) = (
            probe.as_ptr().addr().next_multiple_of(PAGE),
            probe.len() - PAGE,
        );
        let middle = middle - (start - probe.as_ptr().addr());
        let (mut found, mut sum) = (false, 0);
        let told = self.within(start, length, |pages| {
            found |= pages.contains(&middle);
            sum += pages.len();
        });
        std::hint::black_box(&mut probe);
        told.is_some() && found && sum < length
    }

    /// Gives the stretches of `length` bytes at an address that were written since they were mapped, as bytes from the
    /// address on, in order and in whole pages. Of private memory that is a copy of a file, or that began as zeros.
    ///
    /// None if the kernel did not tell.
    #[expect(
        unsafe_code,
        reason = "there is no other way to ask the kernel than by its own structures"
    )]
    pub(crate) fn within(
        &self,
        address: usize,
        length: usize,
        mut each: impl FnMut(Range<usize>),
    ) -> Option<()> {
        let mut regions = [Region::default(); STRETCHES];
        let end = address.checked_add(length)? as u64;
        let mut start = address as u64;
        while start < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                flags: 0,
                start,
                end,
                walk_end: 0,
                vec: regions.as_mut_ptr().expose_provenance() as u64,
                vec_len: STRETCHES as u64,
                max_pages: 0,
                category_inverted: IS_FILE | IS_ZERO,
                category_mask: IS_FILE | IS_ZERO,
                category_anyof_mask: IS_PRESENT | IS_SWAPPED,
                return_mask: 0,
            };
            // SAFETY: the structure is the kernel's, of the size that it states, and `vec` is a place for `vec_len`
            // regions; nothing else is written to. The pages at `start` are only looked at in the process's tables.
            let found = unsafe { libc::ioctl(self.0.as_raw_fd(), SCAN, &raw mut scan) };
            let found = usize::try_from(found).ok()?;
            for region in regions.get(..found)? {
                let from = usize::try_from(region.start).ok()?.checked_sub(address)?;
                each(from..usize::try_from(region.end).ok()?.checked_sub(address)?);
            }
            if scan.walk_end <= start {
                return None;
            }
            start = scan.walk_end;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_were_written_are_told_in_order_however_many() {
        let Some(touched) = Touched::get() else {
            return;
        };
        let mut memory = vec![0_u8; 8 << 20];
        let base = memory.as_ptr().addr().next_multiple_of(PAGE) - memory.as_ptr().addr();
        let written: Vec<usize> = (0..200).map(|n| base + 7 * n * PAGE).collect();
        for at in &written {
            memory[*at] = 1;
        }
        std::hint::black_box(&mut memory);
        let mut told = Vec::new();
        let start = memory.as_ptr().addr() + base;
        touched
            .within(start, memory.len() - PAGE, |pages| told.push(pages))
            .unwrap();
        assert!(told.is_sorted_by_key(|pages| pages.start));
        for at in written {
            let at = at - base;
            assert!(told.iter().any(|pages| pages.contains(&at)), "{at}");
        }
        // Large pages may take neighbours along, but reading does not count.
        memory.clear();
    }
}
