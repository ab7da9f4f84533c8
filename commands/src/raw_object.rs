//! A JSON object whose fields are kept as the text they arrived in.
//!
//! The gateway looks at a handful of fields of a request or an answer and passes the rest on untouched. Keeping the
//! text of every value means that a field nobody here knows reaches the other side byte for byte, that large message
//! lists are never built up as trees, and that no number changes its digits on the way.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// The most fields one object may have: what real clients send stays far below.
pub const OBJECT_MAX_FIELDS: usize = 256;

/// A JSON object in the order it was written. A name that came twice keeps its last value, as every JSON parser has it,
/// so what was checked here is what the next reader sees.
#[derive(Clone, Debug, Default)]
pub struct RawObject(Vec<(String, Box<RawValue>)>);

impl RawObject {
    /// The text of a field's value, if the field is there; `null` is there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.get())
    }

    /// The text of a field's value, where a missing field and `null` are the same.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|text| *text != "null")
    }

    /// A field's value, where a missing field and `null` are the same.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Result<Option<T>, serde_json::Error> {
        self.given(name).map(serde_json::from_str).transpose()
    }

    /// A field's value when it is there and of this type; anything else counts as missing.
    #[must_use]
    pub fn lenient<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.parse(name).ok().flatten()
    }

    /// Puts a field, in its old place if it had one.
    ///
    /// # Errors
    /// When the value cannot be written as JSON, which no plain value runs into.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), serde_json::Error> {
        let value = to_raw_value(value)?;
        self.put(name.into(), value);
        Ok(())
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        let index = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.remove(index).1)
    }

    /// The fields in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get()))
    }

    /// How many bytes the values hold.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.0.iter().map(|(_, value)| value.get().len()).sum()
    }

    fn put(&mut self, name: Cow<'_, str>, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(field, _)| *field == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into_owned(), value)),
        }
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let mut object = RawObject(Vec::with_capacity(8));
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, Box<RawValue>>()? {
                    object.put(name, value);
                    if object.0.len() > OBJECT_MAX_FIELDS {
                        return Err(serde::de::Error::custom(format!("more than {OBJECT_MAX_FIELDS} fields")));
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for RawObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_keep_their_place_and_their_digits() {
        let text = r#"{"b":1.000000000000000000001,"a":{"x":[1,2]},"c":null}"#;
        let object: RawObject = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&object).unwrap(), text);
        assert_eq!(object.get("c"), Some("null"));
        assert_eq!(object.given("c"), None);
    }

    #[test]
    fn of_a_name_that_comes_twice_only_the_last_value_is_left() {
        let object: RawObject = serde_json::from_str(r#"{"n":1,"m":2,"n":9}"#).unwrap();
        assert_eq!(object.parse::<u64>("n").unwrap(), Some(9));
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"n":9,"m":2}"#);
    }

    #[test]
    fn an_object_with_too_many_fields_is_refused() {
        let fields: Vec<String> = (0..=OBJECT_MAX_FIELDS).map(|index| format!("\"f{index}\":0")).collect();
        assert!(serde_json::from_str::<RawObject>(&format!("{{{}}}", fields.join(","))).is_err());
    }
}
