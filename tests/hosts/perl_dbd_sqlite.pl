# Perl's DBD::SQLite. A URI goes behind `uri=`. Load once; the library stays in the process.
# A forked child opens the database itself, as with every SQLite.
use strict;
use warnings;
use DBI;
use Time::HiRes 'sleep';
$| = 1;

sub step {
    my ($name, $value) = @_;
    print "$name $value\n";
    <STDIN>;
}

sub open_it { return DBI->connect("dbi:SQLite:$_[0]", "", "", { RaiseError => 1 }); }

sub connect_to {
    my ($name, $options) = (@_, "");
    return open_it("uri=file:$name?vfs=replica&sync_url=$ENV{PRIMARY}$options");
}

sub load_into {
    my ($db) = @_;
    $db->sqlite_enable_load_extension(1);
    $db->sqlite_load_extension($ENV{LIBREPLICA});
}

sub count { return $_[0]->selectrow_array("SELECT count(*) FROM notes"); }
sub note { return $_[0]->do("INSERT INTO notes(text) VALUES(?)", undef, $_[1]); }

my $loader = open_it("dbname=:memory:");
load_into($loader);
my $app = connect_to("app.db");
step("open", count($app));

$app->selectrow_array("SELECT replica_sync()");
step("sync", count($app));

note($app, "written here");
step("write", count($app));

my $secret = connect_to("secret.db", "&encryption_key=env:KEY");
note($secret, "sealed here");
step("encrypted", count($secret));
$secret->disconnect;

my $live = connect_to("live.db", "&live=1");
my $before = count($live);
step("live", $before);
for (1 .. 1000) { last if count($live) != $before; sleep 0.01; }
step("seen", count($live));

my $second = connect_to("app.db");
note($second, "a second connection");
step("second", count($app));

for my $number (0 .. 7) {
    next if fork;
    $_->{AutoInactiveDestroy} = 1 for $loader, $app, $live, $second;
    my $db = connect_to("app.db");
    note($db, "thread $number row $_") for 0 .. 4;
    $db->disconnect;
    exit 0;
}
1 while wait != -1;
step("threads", count($app));

load_into($second);    # once more is harmless
step("again", count($second));
