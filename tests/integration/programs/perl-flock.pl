#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# Locks a file as Perl programs do.
#
#   perl-flock.pl try|wait|shared FILE          Perl's own flock
#   perl-flock.pl File::Flock:try|wait FILE     the module from CPAN, which also removes the file
#
# Says "held", holds until its input ends; leaves with 75 when busy.
use strict;
use warnings;
use Fcntl qw(:flock O_RDWR O_CREAT);

my ($how, $path) = @ARGV;
$| = 1;

sub plain {
	my $mode = $how eq 'shared' ? LOCK_SH | LOCK_NB : $how eq 'try' ? LOCK_EX | LOCK_NB : LOCK_EX;
	sysopen(my $file, $path, O_RDWR | O_CREAT) or die "open $path: $!\n";
	if (!flock($file, $mode)) {
		exit 75 if $!{EWOULDBLOCK};
		die "flock $path: $!\n";
	}
	return sub { close $file or die "close $path: $!\n" };
}

sub module {
	require File::Flock;
	File::Flock::lock($path, '', $how =~ /try/ ? 'nonblocking' : '') or exit 75;
	return sub { File::Flock::unlock($path) };
}

my $release = $how =~ /::/ ? module() : plain();
print "held\n";
1 while <STDIN>;
$release->();
