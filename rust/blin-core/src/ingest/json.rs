//! JSON lines: one object a line, of which a few keys are columns and the rest is passed over.

use std::borrow::Cow;
use std::fmt;

use rustc_hash::FxHashMap;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ingest::LogOptions;
use crate::ingest::layout::{Layout, MAX_COLUMNS};
use crate::ingest::record::{RecordReader, quote, shown};
use crate::ingest::rows::{BadRow, OnBadRow, Rows};

/// A reader of JSON lines.
pub struct JsonReader<'a> {
    layout: &'a Layout,
    record: RecordReader<'a>,
    /// The columns that are looked at, and their keys.
    places: Vec<usize>,
    keys: Vec<&'a str>,
    on_bad_row: OnBadRow,
}

impl<'a> JsonReader<'a> {
    /// A reader of objects with this layout.
    pub fn new(layout: &'a Layout, options: &LogOptions) -> Self {
        let record = RecordReader::new(layout, options);
        let places: Vec<usize> = record.places().collect();
        let keys = places.iter().map(|&place| layout.columns[place].as_str()).collect();
        Self { layout, record, places, keys, on_bad_row: options.on_bad_row }
    }

    /// Reads a block of whole lines.
    pub fn read_block(&self, block: &[u8], rows: &mut Rows) {
        for line in block.split_inclusive(|&byte| byte == b'\n') {
            rows.lines += 1;
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            rows.counts.read += 1;
            if let Err(bad) = self.read_line(line, rows) {
                rows.push_bad(rows.lines, bad);
                if self.on_bad_row == OnBadRow::Fail {
                    return;
                }
            }
        }
    }

    fn read_line(&self, line: &[u8], rows: &mut Rows) -> Result<(), BadRow> {
        let values = parse(line, Wanted(&self.keys))?;
        let mut fields = Vec::with_capacity(values.len());
        for (slot, (&place, value)) in self.places.iter().zip(&values).enumerate() {
            let value = value.ok_or_else(|| self.bad_value(place, "no such key".to_owned()))?;
            let field = text_of(value).map_err(|found| self.bad_value(place, found))?;
            if let Cow::Owned(unescaped) = &field {
                rows.look_for_nul(unescaped.as_bytes());
            }
            fields.push(field);
            // Whatever else a row without a user or an item holds, or lacks.
            if slot == 1
                && self.record.is_left_out(fields[0].as_bytes(), fields[1].as_bytes(), rows)
            {
                return Ok(());
            }
        }
        let column = |place| self.places.iter().position(|&known| known == place);
        self.record.take(|place| fields[column(place).expect("it is looked at")].as_bytes(), rows)
    }

    #[cold]
    fn bad_value(&self, place: usize, found: String) -> BadRow {
        let column = Some(shown(&self.layout.columns[place]));
        BadRow { column, expected: "text or a number".to_owned(), found }
    }
}

/// The first objects of a file as a table: the keys in order of appearance, and rows of their
/// values, empty where a key is missing or holds neither text nor a number. Of keys beyond
/// [`MAX_COLUMNS`] one is given, which tells that there are more.
pub fn sample(lines: &[u8], limit: usize) -> (Vec<String>, Vec<Vec<Vec<u8>>>) {
    let objects: Vec<Vec<(String, Vec<u8>)>> = lines
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .take(limit)
        .filter_map(|line| parse(line, Everything).ok())
        .collect();
    let mut keys: Vec<String> = Vec::new();
    let mut place_of_key: FxHashMap<&str, usize> = FxHashMap::default();
    for (key, _) in objects.iter().flatten() {
        if keys.len() > MAX_COLUMNS {
            break;
        }
        place_of_key.entry(key).or_insert_with(|| {
            keys.push(key.clone());
            keys.len() - 1
        });
    }
    let row_of = |object: &Vec<(String, Vec<u8>)>| {
        let mut row = vec![Vec::new(); keys.len()];
        for (key, value) in object {
            if let Some(&place) = place_of_key.get(key.as_str()) {
                row[place].clone_from(value);
            }
        }
        row
    };
    let rows = objects.iter().map(row_of).collect();
    (keys, rows)
}

/// The text of a string, the digits of a number exactly as they stand, nothing of a null; or what
/// stands there instead.
fn text_of(value: &RawValue) -> Result<Cow<'_, str>, String> {
    let raw = value.get();
    match raw.as_bytes()[0] {
        b'"' if !raw.contains('\\') => Ok(Cow::Borrowed(&raw[1..raw.len() - 1])),
        b'"' => serde_json::from_str(raw).map(Cow::Owned).map_err(|_| quote(raw.as_bytes())),
        b'n' => Ok(Cow::Borrowed("")),
        b'[' => Err("a list".to_owned()),
        b'{' => Err("an object".to_owned()),
        b't' | b'f' => Err(raw.to_owned()),
        _ => Ok(Cow::Borrowed(raw)),
    }
}

fn parse<'de, V>(line: &'de [u8], visitor: V) -> Result<V::Value, BadRow>
where
    V: Visitor<'de>,
{
    let bad = |found: String| BadRow { column: None, expected: "a JSON object".to_owned(), found };
    let text = std::str::from_utf8(line).map_err(|_| bad("bytes that are not UTF-8".to_owned()))?;
    if !text.starts_with('{') {
        return Err(bad(quote(line)));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = json.deserialize_map(visitor).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| {
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        let place = text.char_indices().take_while(|(byte, _)| *byte < error.column()).count();
        bad(format!("one with a fault at its character {place}: {what}"))
    })
}

/// Collects the values of some keys; of a key that comes twice, the last.
struct Wanted<'a>(&'a [&'a str]);

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.0.len()];
        while let Some(key) = map.next_key_seed(KeyAmong(self.0))? {
            match key {
                Some(place) => values[place] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(values)
    }
}

/// The place of a key among those that are looked for.
struct KeyAmong<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for KeyAmong<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyAmong<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|&wanted| wanted == key))
    }
}

/// Collects all keys and the values that are text or numbers.
struct Everything;

impl<'de> Visitor<'de> for Everything {
    type Value = Vec<(String, Vec<u8>)>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            let text = text_of(value).map(Cow::into_owned).unwrap_or_default();
            entries.push((key, text.into_bytes()));
        }
        Ok(entries)
    }
}
