//! Pages of rows, with the place of the last one as cursor.

/// The most rows one page holds, whatever is asked for.
pub const PAGE_MAX_ROWS: usize = 500;

/// A page; `C` is a place among the rows, a position as a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T, C = i64> {
    /// The rows, in the order that was asked for.
    pub rows: Vec<T>,
    /// The place of the last row, behind which the next page begins; none when this one is the last.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// From rows that were asked for with [`page_rows`]: one more than fits says that there is a next page.
    pub(crate) fn new(mut rows: Vec<T>, limit: usize, place: impl Fn(&T) -> C) -> Self {
        let fits = limit.clamp(1, PAGE_MAX_ROWS);
        let more = rows.len() > fits;
        rows.truncate(fits);
        let next = if more { rows.last().map(place) } else { None };
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
        let page = Page::new(vec![9_i64, 8, 7], 2, |row| *row);
        assert_eq!((page.rows, page.next), (vec![9, 8], Some(8)));
        let page = Page::new(vec![9_i64, 8], 2, |row| *row);
        assert_eq!((page.rows, page.next), (vec![9, 8], None));
        let page = Page::new(vec!["b", "a"], 1, |row| (*row, row.len()));
        assert_eq!((page.rows, page.next), (vec!["b"], Some(("b", 1))));
        assert_eq!(page_rows(0), 2);
        assert_eq!(page_rows(usize::MAX), PAGE_MAX_ROWS as i64 + 1);
    }
}
