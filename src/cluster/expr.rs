//! Values that differ from node to node by a rule: `10.20.1.0 + {index}`, `/{rack}/{name}`.

use std::net::Ipv4Addr;

use crate::net::offset_address;
use crate::range::NodeName;

/// An address that may depend on the node's number: `BASE`, `BASE + {index}`, `BASE + 16`,
/// `BASE + {index} * 2`, in any order of the summands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRule {
    base: Ipv4Addr,
    offset: u64,
    per_index: u64,
}

impl AddressRule {
    /// # Errors
    ///
    /// Says which part cannot be read.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut summands = text.split('+').map(str::trim);
        let base = summands.next().unwrap_or_default();
        let base = base.parse().map_err(|_| {
            ExpressionError(format!("`{base}` is not an IPv4 address like `10.20.1.0`"))
        })?;
        let mut rule = Self { base, offset: 0, per_index: 0 };
        for summand in summands {
            let (per_index, offset) = read_summand(summand)?;
            let overflow = || ExpressionError(format!("`{summand}` is too much"));
            rule.per_index = rule.per_index.checked_add(per_index).ok_or_else(overflow)?;
            rule.offset = rule.offset.checked_add(offset).ok_or_else(overflow)?;
        }
        Ok(rule)
    }

    /// The address of the node `name`.
    ///
    /// # Errors
    ///
    /// Fails if the rule needs a number and the name ends in none, or the sum is no address.
    pub fn address(&self, name: &NodeName) -> Result<Ipv4Addr, ExpressionError> {
        let index = match self.per_index {
            0 => 0,
            _ => name.index().ok_or_else(|| {
                ExpressionError(format!(
                    "`{{index}}` needs a number at the end of the name `{name}`"
                ))
            })?,
        };
        index
            .checked_mul(self.per_index)
            .and_then(|product| product.checked_add(self.offset))
            .and_then(|offset| offset_address(self.base, offset))
            .ok_or_else(|| {
                ExpressionError(format!("the address of `{name}` lies beyond 255.255.255.255"))
            })
    }
}

/// `(times {index}, constant)` of one summand.
fn read_summand(summand: &str) -> Result<(u64, u64), ExpressionError> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let is_index = |text: &str| text.trim() == "{index}";
    let product = summand.split_once('*');
    let read = match product {
        Some((a, b)) if is_index(a) => number(b).map(|n| (n, 0)),
        Some((a, b)) if is_index(b) => number(a).map(|n| (n, 0)),
        None if is_index(summand) => Some((1, 0)),
        None => number(summand).map(|n| (0, n)),
        Some(_) => None,
    };
    read.ok_or_else(|| {
        ExpressionError(format!(
            "`{summand}` cannot be added to an address; expected a number, `{{index}}` or `{{index}} * N`"
        ))
    })
}

/// Text with `{name}`, `{rack}` and `{index}` in it.
///
/// # Errors
///
/// Fails for an unknown word in braces, an unbalanced brace, or a value the node lacks.
pub fn fill(text: &str, name: &NodeName, rack: Option<&str>) -> Result<String, ExpressionError> {
    let mut filled = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        filled += &rest[..at];
        let unbalanced = || ExpressionError(format!("unbalanced brace in `{text}`"));
        let (word, after) = rest[at..]
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .ok_or_else(unbalanced)?;
        match word {
            "name" => filled += name.as_str(),
            "index" => {
                let index = name.index().ok_or_else(|| {
                    ExpressionError(format!(
                        "`{{index}}` needs a number at the end of the name `{name}`"
                    ))
                })?;
                filled += &index.to_string();
            }
            "rack" => {
                filled += rack
                    .ok_or_else(|| ExpressionError(format!("`{{rack}}`: no rack holds `{name}`")))?
            }
            word => {
                return Err(ExpressionError(format!(
                    "unknown word `{{{word}}}`; there are {{name}}, {{index}} and {{rack}}"
                )));
            }
        }
        rest = after;
    }
    Ok(filled + rest)
}

/// An expression that cannot be read or computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_number_in_the_name() {
        for (rule, name, address) in [
            ("192.168.3.11", "node0", "192.168.3.11"),
            ("10.20.1.0 + {index}", "srv017", "10.20.1.17"),
            ("10.20.1.0 + {index}", "srv512", "10.20.3.0"),
            ("10.0.0.0 + {index} * 2 + 1", "n3", "10.0.0.7"),
            ("10.0.0.0 + 4 * {index}", "n3", "10.0.0.12"),
        ] {
            let found = AddressRule::parse(rule).unwrap().address(&NodeName::new(name)).unwrap();
            assert_eq!(found.to_string(), address, "{rule} for {name}");
        }
    }

    #[test]
    fn faulty_rules_say_what_is_wrong() {
        for (rule, name, message) in [
            ("10.0.0", "n1", "`10.0.0` is not an IPv4 address like `10.20.1.0`"),
            (
                "10.0.0.0 + {indx}",
                "n1",
                "`{indx}` cannot be added to an address; expected a number, `{index}` or `{index} * N`",
            ),
            ("10.0.0.0 + {index}", "adm", "`{index}` needs a number at the end of the name `adm`"),
            ("255.255.255.255 + {index}", "n1", "the address of `n1` lies beyond 255.255.255.255"),
        ] {
            let found =
                AddressRule::parse(rule).and_then(|rule| rule.address(&NodeName::new(name)));
            assert_eq!(found.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn text_is_filled_with_name_number_and_rack() {
        let name = NodeName::new("srv017");
        assert_eq!(fill("/{rack}/{name}", &name, Some("r02")).unwrap(), "/r02/srv017");
        assert_eq!(fill("plain", &name, None).unwrap(), "plain");
        for text in ["/{rack}", "/{nmae}", "/{name", "name}"] {
            assert!(fill(text, &name, None).is_err(), "{text}");
        }
    }
}
