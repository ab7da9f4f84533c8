//! Documents and what can be read of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use url::Url;

use super::super::apart;
use super::super::media::Form;
use super::super::text::{LINK_MAX_BYTES, LINKS_MAX, Readable, TITLE_MAX_CHARACTERS, readable};

/// Longer than any test reads.
const LONG: Duration = Duration::from_secs(600);

fn read_as(body: &str, form: Form, limit: usize) -> Readable {
    read_by(Instant::now() + LONG, body, form, limit)
}

fn read_by(deadline: Instant, body: &str, form: Form, limit: usize) -> Readable {
    readable(body, form, &Url::parse("https://example.com/a/b").unwrap(), limit, deadline)
}

fn text(body: &str) -> String {
    read_as(body, Form::Html, 10_000).text
}

#[test]
fn a_page_keeps_its_shape_and_loses_its_markup() {
    let page = "<!doctype html><html><head><meta charset=utf-8><title> The\n page </title><style>p{}</style></head>
        <body><nav><a href='/'>Home</a></nav>
        <h1>First <em>things</em></h1><p>One\n   two&nbsp;three &amp; four.<br>Five.</p>
        <ul><li>a<li><p>b</p></ul><h2></h2><div>after</div>
        <table><tr><th>k<th>v<tr><td>1<td>2</table>
        <pre>\n  x\n    y</pre><script>if (a < b) document.write('<p>no')</script><!-- no --></body></html>";
    let read = read_as(page, Form::Html, 10_000);
    assert_eq!(read.title.as_deref(), Some("The page"));
    assert_eq!(
        read.text,
        "Home (https://example.com/)\n\n# First things\n\nOne two three & four.\nFive.\n\n- a\n\n- b\n\nafter\n\n\
         k | v\n1 | 2\n\n  x\n    y"
    );
    assert!(!read.truncated);
}

#[test]
fn what_nobody_reads_is_dropped() {
    for dropped in [
        "<script>no</script>",
        "<script>'</scr' + '<b>no'</script>",
        "<style>no</style>",
        "<noscript>no<p>no</noscript>",
        "<template><p>no</p><template>no</template>no</template>",
        "<svg><title>no</title><svg></svg><text>no</text></svg>",
        "<svg/>",
        "<iframe>no</iframe>",
        "<object><object>no</object>no</object>",
        "<textarea>no</textarea>",
        "<select><option>no</select>",
        "<!-- no -->",
        "<![CDATA[no]]>",
        "<SCRIPT SRC=no></SCRIPT >",
    ] {
        assert_eq!(text(&format!("<p>before</p>{dropped}<p>after")), "before\n\nafter", "{dropped}");
    }
    assert_eq!(text("<p>before<script>never closed"), "before");
}

#[test]
fn links_keep_their_words_and_say_where_they_lead() {
    assert_eq!(text("<a href='../c?d=1&amp;e=2'>see</a>."), "see (https://example.com/c?d=1&e=2).");
    assert_eq!(text("<a href='//other.example.com/'>see</a>"), "see (https://other.example.com/)");
    assert_eq!(text("<a href=https://example.com/x>https://example.com/x</a>"), "https://example.com/x");
    assert_eq!(text("<a href=1>one<a href=2>two"), "one (https://example.com/a/1)two (https://example.com/a/2)");
    assert_eq!(text("<base href=/z/><base href=/y/><a href=1>one</a>"), "one (https://example.com/z/1)");
    assert_eq!(text("<a href=/first href=/second>x</a>"), "x (https://example.com/first)");
    for quiet in ["#part", "javascript:alert(1)", "mailto:a@example.com", "data:text/html,x", "http://["] {
        assert_eq!(text(&format!("<a href=\"{quiet}\">see</a>")), "see", "{quiet}");
    }
    assert_eq!(text("<a name=x>see</a> <a href=/y><img src=z></a>"), "see");
    assert_eq!(text(&format!("<a href='/{}'>see</a>", "x".repeat(300))), "see");
}

#[test]
fn xhtml_closes_itself_and_html_does_not() {
    let page = "<html><head><title/><script src='x'/><style/></head><body><p>seen</p><script>a &lt; b</script>end</body></html>";
    assert_eq!(read_as(page, Form::Xhtml, 100).text, "seen\n\nend");
    assert_eq!(text("<p>seen</p><script src='x'/>gone"), "seen");
}

#[test]
fn what_hides_from_a_reader_hides_nothing_from_a_model() {
    let hidden = "a\u{200b}b\u{202e}c\u{e0049}\u{e0067}d\u{0}e\u{1b}[31mf\u{ad}g";
    assert_eq!(text(hidden), "abcde[31mfg");
    assert_eq!(read_as(hidden, Form::Plain, 100).text, "abcde[31mfg");
    assert_eq!(text("&#x202e;a&#x200b;b&#xe0049;"), "ab");
    assert_eq!(read_as("a\r\n\tb", Form::Plain, 100).text, "a\n\tb");
}

#[test]
fn every_text_has_an_end() {
    let cut = |body: &str, form: Form, limit: usize| {
        let read = read_as(body, form, limit);
        (read.text, read.truncated)
    };
    assert_eq!(cut("日本語", Form::Plain, 3), ("日本語".to_owned(), false));
    assert_eq!(cut("日本語!", Form::Plain, 3), ("日本語".to_owned(), true));
    assert_eq!(cut("<p>日本語<p> ", Form::Html, 3), ("日本語".to_owned(), false));
    assert_eq!(cut("<p>日本<p>語", Form::Html, 4), ("日本".to_owned(), true));
    assert!(cut("<a href=/x>日本</a>", Form::Html, 4).1);
    let title = format!("<title>{}</title>", "é".repeat(TITLE_MAX_CHARACTERS + 1));
    assert_eq!(read_as(&title, Form::Html, 9).title.unwrap().chars().count(), TITLE_MAX_CHARACTERS);
    assert_eq!(read_as("<title>a</title><title>b</title>", Form::Html, 9).title.as_deref(), Some("a"));
    assert_eq!(read_as("<title> </title>", Form::Html, 9).title, None);
}

#[test]
fn hostile_markup_costs_no_more_than_any_other() {
    let pages = [
        "<div>".repeat(200_000),
        "<a href=x>".repeat(100_000),
        "</p>".repeat(250_000),
        "<".repeat(1_000_000),
        "<!--".repeat(250_000),
        "&".repeat(1_000_000),
        format!("<p {}>", "a=b ".repeat(250_000)),
        format!("<p {}>", (0..120_000).map(|number| format!("a{number} ")).collect::<String>()),
        "<svg>".repeat(200_000),
        "<script><!--<script>".repeat(50_000),
        "<title>".repeat(140_000),
        "<pre>\n".repeat(150_000),
        "<![CDATA[".repeat(100_000),
        "&notanentity;".repeat(80_000),
        format!("<base href='/{}/'>{}", "x".repeat(500_000), "<a href=y>".repeat(50_000)),
        format!("<base href='/{}/'>{}", "x".repeat(LINK_MAX_BYTES - 40), "<a href=y>".repeat(90_000)),
        format!("<a href='/{}'>", "x".repeat(900_000)),
    ];
    for page in &pages {
        let begun = Instant::now();
        let read = read_as(page, Form::Html, 40_000);
        assert!(read.text.chars().count() <= 40_000);
        // A debug build beside other tests; what is quadratic takes minutes.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?} {:?}", &page[..20], begun.elapsed());
    }
}

#[test]
fn a_base_longer_than_a_link_is_no_base() {
    let long = "x".repeat(LINK_MAX_BYTES);
    assert_eq!(text(&format!("<base href='/{long}/'><a href=1>one</a>")), "one (https://example.com/a/1)");
    assert_eq!(
        text(&format!("<base href='/{long}/'><base href=/z/><a href=1>one</a>")),
        "one (https://example.com/z/1)"
    );
    // 90 characters of two bytes each are 540 once they are escaped.
    let grows = "ü".repeat(90);
    assert_eq!(text(&format!("<base href='/{grows}/'><a href=1>one</a>")), "one (https://example.com/a/1)");
}

#[test]
fn of_very_many_links_the_last_keep_their_words_alone() {
    let page = "<p><a href=/y>x</a>".repeat(LINKS_MAX + 3);
    let read = read_as(&page, Form::Html, 1_000_000);
    assert_eq!(read.text.matches("(https://example.com/y)").count(), LINKS_MAX);
    assert_eq!(read.text.matches('x').count(), LINKS_MAX + 3 + LINKS_MAX, "no word is lost");
}

#[test]
fn what_is_not_read_in_time_is_cut_off() {
    let page = "<p>word".repeat(10_000);
    let read = read_by(Instant::now(), &page, Form::Html, 1_000_000);
    assert_eq!((read.text.as_str(), read.truncated), ("", true));
    assert!(!read_as(&page, Form::Html, 1_000_000).truncated);
}

#[tokio::test]
async fn a_reading_nobody_waits_for_holds_its_permit_until_it_ends() {
    let running = Arc::new(Semaphore::new(1));
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let permit = Arc::clone(&running).try_acquire_owned().unwrap();
    let work = apart(permit, move || ended.recv());
    assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err());
    assert_eq!(running.available_permits(), 0);
    end.send(()).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(10), running.acquire()).await.is_ok());
}
