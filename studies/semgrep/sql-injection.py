def f(cursor, database, a):
    # ruleid: sql-injection
    cursor.execute("SELECT id FROM t WHERE b = '%s'" % a)
    # ruleid: sql-injection
    cursor.execute("SELECT id FROM t WHERE b = " + a)
    # ruleid: sql-injection
    cursor.execute(f"SELECT id FROM t WHERE b = {a}")
    # ruleid: sql-injection
    cursor.executemany("INSERT INTO {} VALUES (?)".format(a), [])
    query = "SELECT * FROM t WHERE b = " + a
    # ruleid: sql-injection
    return cursor.execute(query).fetchall()


def g(cursor, a):
    # ok: sql-injection
    cursor.execute("SELECT id FROM t WHERE b = ?", (a,))
    query = "SELECT id FROM t WHERE b = ?"
    # ok: sql-injection
    cursor.execute(query, (a,))
    # ok: sql-injection
    cursor.execute("SELECT id " + "FROM t")
    # ok: sql-injection
    return "SELECT " + a
