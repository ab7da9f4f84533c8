//! What a database error says about whose fault it is.

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// Whether the values are to blame: with another event the same statement would have passed.
pub(crate) fn is_about_the_data(error: &sqlx::Error) -> bool {
    if matches!(error, sqlx::Error::Encode(_)) {
        return true;
    }
    // 22 data exception, 23 integrity constraint, 54000 a row or index entry that is too large.
    sqlstate(error).is_some_and(|code| code.starts_with("22") || code.starts_with("23") || code == "54000")
}

/// Whether the connection or the server is to blame, or the moment: the same work will pass later.
pub(crate) fn is_about_the_moment(error: &sqlx::Error) -> bool {
    let transport = matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    );
    // 08 connection, 40 serialization and deadlock, 53 resources, 57 shutdown and cancelled statements, 55P03 lock
    // timeout, 25P02 and 25P03 a transaction that is already lost.
    transport
        || sqlstate(error).is_some_and(|code| {
            ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
                || ["55P03", "25P02", "25P03"].contains(&code.as_str())
        })
}
