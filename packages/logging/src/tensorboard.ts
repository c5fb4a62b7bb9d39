import { appendFile, mkdir, readdir, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { crc32c } from "@aws-crypto/crc32c";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type Logger, prefixedValues, type Series } from "./logger.ts";

/**
 * A TensorBoard event file: TFRecords of tensorflow.Event (event.proto, summary.proto), each scalar a simple_value. Files of
 * an earlier attempt at the series go: TensorBoard would show their steps beside these.
 */
export async function tensorboardLogger({ folder }: Series): Promise<Logger> {
  await mkdir(folder, { recursive: true });
  for (const name of await readdir(folder)) {
    if (name.startsWith("events.out.tfevents.")) await rm(join(folder, name));
  }
  const seconds = `${Math.floor(Date.now() / 1000)}`.padStart(10, "0");
  const file = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.0`);
  const version = new BinaryWriter().tag(1, WireType.Bit64).double(Date.now() / 1000);
  version.tag(3, WireType.LengthDelimited).string("brain.Event:2");
  await appendFile(file, tfRecord(version.finish()));
  return {
    async log(rows) {
      await appendFile(
        file,
        Buffer.concat(rows.map((row) => tfRecord(event(row.time, row.step, prefixedValues(row))))),
      );
    },
    close: async () => {},
  };
}

/** tensorflow.Event {wall_time = 1, step = 2, summary = 5 {value = 1 {tag = 1, simple_value = 2}}} */
function event(time: number, step: number, values: readonly [string, number][]): Uint8Array {
  const writer = new BinaryWriter().tag(1, WireType.Bit64).double(time / 1000);
  writer.tag(2, WireType.Varint).int64(step);
  writer.tag(5, WireType.LengthDelimited).fork();
  for (const [tag, value] of values) {
    writer.tag(1, WireType.LengthDelimited).fork();
    writer.tag(1, WireType.LengthDelimited).string(tag).tag(2, WireType.Bit32).float(value);
    writer.join();
  }
  return writer.join().finish();
}

/** u64 length, masked CRC-32C of it, the data, masked CRC-32C of that (TensorFlow, lib/io/record_writer.h). */
function tfRecord(data: Uint8Array): Buffer {
  const record = Buffer.alloc(16 + data.length);
  record.writeBigUInt64LE(BigInt(data.length), 0);
  record.writeUInt32LE(maskedCrc(record.subarray(0, 8)), 8);
  record.set(data, 12);
  record.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return record;
}

function maskedCrc(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
