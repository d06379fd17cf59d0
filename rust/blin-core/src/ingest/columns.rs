//! Which column holds the users, the items, the times and the ratings.

use std::path::Path;

use crate::error::{Error, Result};
use crate::ingest::LogOptions;
use crate::ingest::record::shown;
use crate::ingest::time::{Time, TimeStyle, parse, style_of};

/// Characters of a column's name that tell its role.
const COMPARED: usize = 256;

/// How many columns a message names.
const LISTED: usize = 30;

/// What a column can be to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Item,
    Time,
    /// What orders events of the same time.
    TieBreak,
    Rating,
}

pub(super) const ROLES: [Role; 5] =
    [Role::User, Role::Item, Role::Time, Role::TieBreak, Role::Rating];

impl Role {
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::TieBreak => "tie_break",
            _ => self.name(),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Item => "item",
            Self::Time | Self::TieBreak => "time",
            Self::Rating => "rating",
        }
    }

    /// Whole names, without case and punctuation; where a log has several, the first one counts.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::User => &[
                "userid",
                "user",
                "uid",
                "reviewerid",
                "reviewer",
                "customerid",
                "customer",
                "visitorid",
                "visitor",
                "memberid",
                "member",
                "accountid",
                "account",
                "clientid",
                "client",
                "buyerid",
                "buyer",
                "shopperid",
                "shopper",
                "personid",
                "person",
                "authorid",
                "author",
                "listener",
                "reader",
                "player",
                "subscriber",
                "username",
                "sessionid",
                "session",
            ],
            Self::Item => &[
                "itemid",
                "item",
                "iid",
                "parentasin",
                "asin",
                "productid",
                "product",
                "movieid",
                "movie",
                "businessid",
                "business",
                "trackid",
                "track",
                "songid",
                "song",
                "bookid",
                "book",
                "isbn",
                "sku",
                "skuid",
                "articleid",
                "article",
                "newsid",
                "news",
                "videoid",
                "video",
                "gameid",
                "game",
                "appid",
                "app",
                "artistid",
                "artist",
                "recipeid",
                "recipe",
                "courseid",
                "course",
                "listingid",
                "listing",
                "poiid",
                "poi",
                "venueid",
                "venue",
                "locationid",
                "contentid",
                "content",
            ],
            Self::Time => &[
                "timestamp",
                "unixreviewtime",
                "unixtime",
                "time",
                "datetime",
                "eventtime",
                "date",
                "eventdate",
                "createdat",
                "ts",
                "when",
                "reviewtime",
                "reviewdate",
            ],
            Self::TieBreak => &[],
            Self::Rating => {
                &["rating", "ratings", "stars", "overall", "score", "reviewscore", "rate"]
            }
        }
    }

    /// What the name of such a column contains, if it is none of the well-known ones.
    fn hints(self) -> &'static [&'static str] {
        match self {
            Self::User => &[
                "user", "customer", "visitor", "reviewer", "member", "account", "client", "buyer",
                "shopper", "person", "session",
            ],
            Self::Item => &[
                "item", "product", "asin", "movie", "business", "track", "song", "book", "sku",
                "article", "video", "game", "artist", "content",
            ],
            Self::Time => &["timestamp", "time", "date"],
            Self::TieBreak => &[],
            Self::Rating => &["rating", "stars"],
        }
    }

    /// The column that the options name. `a,b` for the time is two columns, unless one is called
    /// so: b orders what has the same a.
    fn chosen<'a>(self, options: &'a LogOptions, names: &[String]) -> Option<&'a str> {
        let is_pair = |column: &&str| column.contains(',') && place_of(column, names).is_none();
        let time = options.time_column.as_deref();
        let pair = time.filter(is_pair).and_then(|column| column.split_once(','));
        match self {
            Self::User => options.user_column.as_deref(),
            Self::Item => options.item_column.as_deref(),
            Self::Time => pair.map(|(first, _)| first.trim()).or(time),
            Self::TieBreak => pair.map(|(_, second)| second.trim()),
            Self::Rating => options.rating_column.as_deref(),
        }
    }
}

/// The place of each role's column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places([Option<usize>; 5]);

impl Places {
    pub(super) fn of(&self, role: Role) -> Option<usize> {
        self.0[role as usize]
    }

    fn set(&mut self, role: Role, place: usize) {
        self.0[role as usize] = Some(place);
    }

    fn is_free(&self, place: usize) -> bool {
        !self.0.contains(&Some(place))
    }
}

type Record = Vec<Vec<u8>>;

/// Finds the columns by the options, by well-known names, by parts of names and by their content.
pub(super) fn find(
    path: &Path,
    names: &[String],
    has_header: bool,
    rows: &[Record],
    options: &LogOptions,
) -> Result<Places> {
    let mut places = chosen_places(path, names, options)?;
    if has_header {
        place_by_names(&mut places, names);
        place_by_hints(&mut places, names);
    }
    let times = time_like_columns(names.len(), rows);
    place_time(&mut places, &times, !has_header);
    if !has_header {
        place_by_position(&mut places, names.len());
    }
    require(path, names, &places, options)?;
    Ok(places)
}

fn chosen_places(path: &Path, names: &[String], options: &LogOptions) -> Result<Places> {
    let mut places = Places::default();
    for role in ROLES {
        let Some(column) = role.chosen(options, names) else { continue };
        let Some(place) = place_of(column, names) else {
            let expected = format!("a column \"{column}\" (--{}-column)", role.name());
            return Err(Error::log(path, expected, format!("columns {}", list(names))));
        };
        if !places.is_free(place) {
            let expected = format!("another column for the {}s", role.name());
            return Err(Error::log(path, expected, format!("\"{column}\" chosen twice")));
        }
        places.set(role, place);
    }
    Ok(places)
}

/// A column by its exact name, by its name in other letters, or by its number from 1.
fn place_of(column: &str, names: &[String]) -> Option<usize> {
    let number = || column.parse::<usize>().ok()?.checked_sub(1).filter(|&n| n < names.len());
    let exact = names.iter().position(|name| name == column);
    let alike = || names.iter().position(|name| plain(name) == plain(column));
    exact.or_else(alike).or_else(number)
}

fn place_by_names(places: &mut Places, names: &[String]) {
    let plain_names: Vec<String> = names.iter().map(|name| plain(name)).collect();
    for role in ROLES.into_iter().filter(|&role| places.of(role).is_none()).collect::<Vec<_>>() {
        let place = role.names().iter().find_map(|known| {
            (0..names.len()).find(|&place| places.is_free(place) && plain_names[place] == *known)
        });
        if let Some(place) = place {
            places.set(role, place);
        }
    }
}

fn place_by_hints(places: &mut Places, names: &[String]) {
    for role in ROLES.into_iter().filter(|&role| places.of(role).is_none()).collect::<Vec<_>>() {
        let place = role.hints().iter().find_map(|hint| {
            (0..names.len())
                .find(|&place| places.is_free(place) && plain(&names[place]).contains(hint))
        });
        if let Some(place) = place {
            places.set(role, place);
        }
    }
}

/// The last column of times among those from the third on; before that only without a header,
/// where a log may begin with the time.
fn place_time(places: &mut Places, times: &[usize], anywhere: bool) {
    if places.of(Role::Time).is_some() {
        return;
    }
    let free = |place: &&usize| places.is_free(**place);
    let usual = times.iter().rev().filter(free).find(|&&place| place >= 2);
    let unusual = times.iter().find(free).filter(|_| anywhere);
    if let Some(&place) = usual.or(unusual) {
        places.set(Role::Time, place);
    }
}

/// Users first, items next, then perhaps a rating.
fn place_by_position(places: &mut Places, num_columns: usize) {
    for role in [Role::User, Role::Item, Role::Rating] {
        let place = (0..num_columns).find(|&place| places.is_free(place));
        if let (None, Some(place)) = (places.of(role), place) {
            places.set(role, place);
        }
    }
}

fn require(path: &Path, names: &[String], places: &Places, options: &LogOptions) -> Result<()> {
    let needs_rating = options.min_rating.is_some();
    for role in [Role::User, Role::Item, Role::Rating] {
        if places.of(role).is_none() && (role != Role::Rating || needs_rating) {
            let role = role.name();
            let expected = format!("a column of {role}s");
            let found = format!("columns {}; choose one with --{role}-column", list(names));
            return Err(Error::log(path, expected, found));
        }
    }
    Ok(())
}

/// Columns that hold times and hardly anything else could be: dates, and integers of the size of
/// our days' times.
fn time_like_columns(num_columns: usize, rows: &[Record]) -> Vec<usize> {
    let is_time_like = |place: usize| most(rows, place, looks_like_time);
    (0..num_columns).filter(|&place| num_columns > 2 && is_time_like(place)).collect()
}

/// Whether a column is so in most rows; a few bad rows do not change what a column is.
fn most(rows: &[Record], place: usize, is_so: impl Fn(&[u8]) -> bool) -> bool {
    let count = rows.iter().filter(|row| row.get(place).is_some_and(|field| is_so(field))).count();
    count * 2 > rows.len()
}

/// Whether any column does.
pub(super) fn has_time_like(num_columns: usize, rows: &[Record]) -> bool {
    !time_like_columns(num_columns, rows).is_empty()
}

fn looks_like_time(field: &[u8]) -> bool {
    if style_of(field) == Some(TimeStyle::Date) {
        return true;
    }
    let seconds = match parse(field, TimeStyle::Number) {
        Some(Time::Integer(value)) if field.first() != Some(&b'0') => value,
        Some(Time::Nanos(value)) => value / 1_000_000_000,
        _ => return false,
    };
    [1, 1_000, 1_000_000, 1_000_000_000]
        .into_iter()
        .any(|unit| (300_000_000..4_200_000_000).contains(&(seconds / unit)))
}

/// Whether the first record names the columns of the others.
pub(super) fn is_header(first: &Record, rows: &[Record]) -> bool {
    let names: Vec<String> = first.iter().map(|field| text(field)).collect();
    let known =
        |name: &String| ROLES.iter().any(|role| role.names().contains(&plain(name).as_str()));
    if names.iter().any(|name| known(name) || type_suffix(name).is_some()) {
        return true;
    }
    let is_number = |field: &[u8]| style_of(field).is_some();
    let only_first_is_text =
        |place: usize| !is_number(&first[place]) && most(rows, place, is_number);
    if (0..first.len()).any(only_first_is_text) {
        return true;
    }
    let hinted = |field: &[u8], role: Role| {
        role.hints().iter().any(|hint| plain(&text(field)).contains(hint))
    };
    [Role::User, Role::Item].into_iter().all(|role| {
        (0..first.len()).any(|place| {
            hinted(&first[place], role)
                && !rows.iter().any(|row| row.get(place).is_some_and(|field| hinted(field, role)))
        })
    })
}

/// A name in lower case, without punctuation and without the type that RecBole appends to it.
fn plain(name: &str) -> String {
    let name = type_suffix(name).map_or(name, |suffix| &name[..name.len() - suffix.len()]);
    let letters = name.chars().take(COMPARED).filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

fn type_suffix(name: &str) -> Option<&'static str> {
    [":token", ":token_seq", ":float", ":float_seq"].into_iter().find(|s| name.ends_with(s))
}

pub(super) fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn list(names: &[String]) -> String {
    let listed = names.iter().take(LISTED).map(|name| format!("\"{}\"", shown(name)));
    let more = names.len().saturating_sub(LISTED);
    let rest = (more > 0).then(|| format!("{more} more"));
    listed.chain(rest).collect::<Vec<_>>().join(", ")
}
