//! Pages of rows, newest first, with the position of the last one as cursor.

/// The most rows one page holds, whatever is asked for.
pub const PAGE_MAX_ROWS: usize = 500;

/// A page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// The rows, newest first.
    pub rows: Vec<T>,
    /// Where the next page begins; none when this one is the last.
    pub next: Option<i64>,
}

impl<T> Page<T> {
    /// From rows that were asked for with [`page_rows`]: one more than fits says that there is a next page.
    pub(crate) fn new(mut rows: Vec<T>, limit: usize, position: impl Fn(&T) -> i64) -> Self {
        let fits = limit.clamp(1, PAGE_MAX_ROWS);
        let more = rows.len() > fits;
        rows.truncate(fits);
        let next = if more { rows.last().map(position) } else { None };
        Self { rows, next }
    }
}

/// How many rows to ask the database for.
pub(crate) fn page_rows(limit: usize) -> i64 {
    limit.clamp(1, PAGE_MAX_ROWS) as i64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_whether_there_is_another() {
        let page = Page::new(vec![9, 8, 7], 2, |row| *row);
        assert_eq!((page.rows, page.next), (vec![9, 8], Some(8)));
        let page = Page::new(vec![9, 8], 2, |row| *row);
        assert_eq!((page.rows, page.next), (vec![9, 8], None));
        assert_eq!(page_rows(0), 2);
        assert_eq!(page_rows(usize::MAX), PAGE_MAX_ROWS as i64 + 1);
    }
}
