<?php
// PHP's SQLite3 class, and PDO. Name the library's folder in php.ini: sqlite3.extension_dir = /usr/lib/replica
// Only the SQLite3 class can load, and it stays. replica_open() makes later opens of a path, by PDO too, this replica.

function step(string $name, int $value): void
{
    echo "$name $value\n";
    fgets(STDIN);
}

function register(SQLite3 $loader, string $name, array $options = []): void
{
    $statement = $loader->prepare('SELECT replica_open(?, ?)');
    $statement->bindValue(1, $name);
    $statement->bindValue(2, json_encode(['sync_url' => getenv('PRIMARY')] + $options));
    $statement->execute()->fetchArray();
}

function connect(string $name): SQLite3
{
    $db = new SQLite3($name);
    $db->enableExceptions(true);
    return $db;
}

function count_notes(SQLite3 $db): int
{
    return $db->querySingle('SELECT count(*) FROM notes');
}

function write(SQLite3 $db, string $text): void
{
    $statement = $db->prepare('INSERT INTO notes(text) VALUES(?)');
    $statement->bindValue(1, $text);
    $statement->execute();
}

$loader = new SQLite3(':memory:');
$loader->loadExtension('libreplica.so');
register($loader, 'app.db');
$app = connect('app.db');
step('open', count_notes($app));

$app->querySingle('SELECT replica_sync()');
step('sync', count_notes($app));

write($app, 'written here');
step('write', count_notes($app));

register($loader, 'secret.db', ['encryption_key' => 'env:KEY']);
$secret = connect('secret.db');
write($secret, 'sealed here');
step('encrypted', count_notes($secret));
$secret->close();

register($loader, 'live.db', ['live' => 1]);
$live = connect('live.db');
$before = count_notes($live);
step('live', $before);
for ($i = 0; $i < 1000 && count_notes($live) === $before; $i++) {
    usleep(10000);
}
step('seen', count_notes($live));

$second = new PDO('sqlite:app.db');
$second->prepare('INSERT INTO notes(text) VALUES(?)')->execute(['a second connection']);
step('second', count_notes($app));

// PHP has no threads: as many processes. A child opens the database itself.
$children = [];
for ($number = 0; $number < 8; $number++) {
    $child = pcntl_fork();
    if ($child === 0) {
        $db = connect('app.db');
        for ($row = 0; $row < 5; $row++) {
            write($db, "thread $number row $row");
        }
        $db->close();
        exit(0);
    }
    $children[] = $child;
}
foreach ($children as $child) {
    pcntl_waitpid($child, $status);
}
step('threads', count_notes($app));

$app->loadExtension('libreplica.so'); // once more is harmless
step('again', count_notes($app));
