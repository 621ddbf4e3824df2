// Java with sqlite-jdbc. enable_load_extension in the properties, then load by SQL, once; the library stays.
// The driver's own busy_timeout is 3 s. A `file:` URI goes behind jdbc:sqlite: as it is.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import org.sqlite.SQLiteConfig;

class Host {
    static void step(String name, int value) throws Exception {
        System.out.println(name + " " + value);
        System.in.read();
    }

    static Connection open(String target) throws SQLException {
        SQLiteConfig config = new SQLiteConfig();
        config.enableLoadExtension(true);
        return DriverManager.getConnection("jdbc:sqlite:" + target, config.toProperties());
    }

    static Connection connect(String name, String options) throws SQLException {
        return open("file:" + name + "?vfs=replica&sync_url=" + System.getenv("PRIMARY") + options);
    }

    static int query(Connection db, String sql, String... arguments) throws SQLException {
        try (var statement = db.prepareStatement(sql)) {
            for (int i = 0; i < arguments.length; i++) statement.setString(i + 1, arguments[i]);
            if (!statement.execute()) return 0;
            try (ResultSet rows = statement.getResultSet()) {
                return rows.next() ? rows.getInt(1) : 0;
            }
        }
    }

    static void load(Connection db) throws SQLException {
        query(db, "SELECT load_extension(?)", System.getenv("LIBREPLICA"));
    }

    static int count(Connection db) throws SQLException {
        return query(db, "SELECT count(*) FROM notes");
    }

    static void write(Connection db, String text) throws SQLException {
        query(db, "INSERT INTO notes(text) VALUES(?)", text);
    }

    static void work(int number) {
        try (Connection db = connect("app.db", "")) {
            for (int row = 0; row < 5; row++) write(db, "thread " + number + " row " + row);
        } catch (SQLException e) {
            e.printStackTrace();
        }
    }

    public static void main(String[] args) throws Exception {
        try (Connection loader = open(":memory:")) {
            load(loader);
        }
        Connection app = connect("app.db", "");
        step("open", count(app));

        query(app, "SELECT replica_sync()");
        step("sync", count(app));

        write(app, "written here");
        step("write", count(app));

        try (Connection secret = connect("secret.db", "&encryption_key=env:KEY")) {
            write(secret, "sealed here");
            step("encrypted", count(secret));
        }

        Connection live = connect("live.db", "&live=1");
        int before = count(live);
        step("live", before);
        for (int i = 0; i < 1000 && count(live) == before; i++) Thread.sleep(10);
        step("seen", count(live));

        Connection second = connect("app.db", "");
        write(second, "a second connection");
        step("second", count(app));

        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 8; i++) {
            int number = i;
            threads.add(new Thread(() -> work(number)));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) thread.join();
        step("threads", count(app));

        load(second); // once more is harmless
        step("again", count(second));
    }
}
