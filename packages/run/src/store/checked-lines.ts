import { crc32 } from "node:zlib";
import type { LineFormat } from "@tempora/text";
import { changedRemedy } from "./sealed.ts";

const opening = '{"crc":"';
const digits = 8;
const closing = '",';

/**
 * A JSON object a line, with the CRC-32 of the rest before its own fields: a log that nobody has sealed yet, and that a killed stage
 * goes on from, tells a changed byte from what was written.
 */
export const checkedLines: LineFormat<unknown> = {
  write(row) {
    const text = JSON.stringify(row);
    return `${beginning(text)}${text.slice(1)}`;
  },
  read(line) {
    const at = opening.length + digits + closing.length;
    const text = `{${line.slice(at)}`;
    if (line.slice(0, at) !== beginning(text)) {
      throw new TypeError("the checksum of the row is not that of its content");
    }
    return JSON.parse(text);
  },
  remedy: changedRemedy,
};

function beginning(text: string): string {
  return `${opening}${crc32(text).toString(16).padStart(digits, "0")}${closing}`;
}
