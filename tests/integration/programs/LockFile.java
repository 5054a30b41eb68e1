// SPDX-License-Identifier: MIT

import java.io.RandomAccessFile;
import java.nio.channels.FileLock;

/**
 * Locks a file with FileChannel, as Java programs do.
 *
 * <p>LockFile try|wait|shared FILE, or range FILE START SIZE: says "held", holds until its input
 * ends; busy: exit status 75.
 */
public class LockFile {
	public static void main(String[] args) throws Exception {
		try (RandomAccessFile file = new RandomAccessFile(args[1], "rw")) {
			FileLock lock = switch (args[0]) {
				case "try" -> file.getChannel().tryLock();
				case "shared" -> file.getChannel().tryLock(0, Long.MAX_VALUE, true);
				case "range" -> file.getChannel()
					.tryLock(Long.parseLong(args[2]), Long.parseLong(args[3]), false);
				default -> file.getChannel().lock();
			};
			if (lock == null) {
				System.exit(75);
			}
			System.out.println("held");
			System.in.transferTo(java.io.OutputStream.nullOutputStream());
			lock.release();
		}
	}
}
