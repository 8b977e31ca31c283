//! Parts of one, as the keys `*_SAMPLE` take them. O(length of the text).
#![forbid(unsafe_code)]

use super::value::all_digits;

/// A decimal fraction from 0 to 1 in millionths; more than six decimals are refused, not rounded.
pub(super) fn parse(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if !all_digits(whole) || !all_digits(decimals) || decimals.len() > 6 {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    let millionths = format!("{decimals:0<6}").parse::<u32>().ok()?;
    let sum = whole.checked_mul(1_000_000)?.checked_add(millionths)?;
    (sum <= 1_000_000).then_some(sum)
}

/// The shortest text that [`parse`] takes for it.
pub(super) fn show(millionths: u32) -> String {
    if millionths.is_multiple_of(1_000_000) {
        return (millionths / 1_000_000).to_string();
    }
    format!("0.{millionths:06}")
        .trim_end_matches('0')
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_have_at_most_six_decimals_and_are_at_most_one() {
        for (text, millionths, shown) in [
            ("0.0001", 100, "0.0001"),
            ("0", 0, "0"),
            ("1", 1_000_000, "1"),
            ("1.000", 1_000_000, "1"),
            ("0.5", 500_000, "0.5"),
            ("0.000001", 1, "0.000001"),
        ] {
            assert_eq!(parse(text), Some(millionths), "{text}");
            assert_eq!(show(millionths), shown);
        }
        for bad in [
            "",
            ".",
            "1.1",
            "2",
            "-0.1",
            "0.0000001",
            "1e-4",
            ".5",
            "0.",
            "99999999999",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
