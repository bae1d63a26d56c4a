//! Numbers as text, without the formatting machinery, which is large and slow in a filter.

/// Decimal digits. Always true, so that a source can end with it.
pub(crate) fn write(number: u64, out: &mut Vec<u8>) -> bool {
    let from = out.len();
    let mut rest = number;
    loop {
        out.push(digit(rest % 10));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(from..) {
        digits.reverse();
    }
    true
}

/// Decimal digits, at least `width` of them.
pub(crate) fn write_padded(number: u64, width: u32, out: &mut Vec<u8>) {
    let mut bound = 10_u64.saturating_pow(width.saturating_sub(1));
    while bound > number && bound > 1 {
        out.push(b'0');
        bound /= 10;
    }
    write(number, out);
}

/// Two hexadecimal digits, in lower case.
pub(crate) fn write_hex(byte: u8, out: &mut Vec<u8>) {
    for half in [byte >> 4, byte & 15] {
        out.push(if half < 10 {
            b'0' + half
        } else {
            b'a' + half - 10
        });
    }
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_everyone_writes_them() {
        for number in [0, 7, 10, 99, 100, 1_234_567, u64::MAX] {
            let mut out = Vec::new();
            assert!(write(number, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
        for (number, width) in [(0, 2), (5, 2), (31, 2), (70, 4), (2026, 4), (12_345, 4)] {
            let mut out = Vec::new();
            write_padded(number, width, &mut out);
            let expected = format!("{number:0width$}", width = width as usize);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
