//! Where an event stands, as people write it: `3:42`.

use std::fmt;
use std::str::FromStr;

/// A partition and a position in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The position.
    pub position: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.position)
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (partition, position) = text.split_once(':')?;
            Some(Self { partition: partition.parse().ok()?, position: position.parse().ok()? })
        };
        let place = read().filter(|place| place.partition >= 0 && place.position > 0);
        place.ok_or_else(|| "expected PARTITION:POSITION, such as 3:42".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_place_is_two_numbers_with_a_colon_between() {
        assert_eq!("3:42".parse(), Ok(Place { partition: 3, position: 42 }));
        for wrong in ["3", "3:", ":42", "3:0", "-1:4", "3:4:5", "three:4"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
