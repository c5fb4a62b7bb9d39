import type { Server } from "node:http";
import { isIP } from "node:net";
import { systemErrorCode, TemporaError } from "@tempora/errors";

/** Whether only this machine reaches what listens there. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}

/**
 * The name by which a request asks for this machine, where it is neither an address nor localhost. A page in a browser can
 * make a name of its own stand for 127.0.0.1, and then ask as if it came from here. It cannot hide the name.
 */
export function foreignName(hostHeader: string): string | null {
  const name = hostHeader.replace(/:\d+$/, "").toLowerCase();
  return /^(.+\.)?localhost$/.test(name) || isIP(name.replace(/^\[(.*)\]$/, "$1")) !== 0 ? null : name;
}

/** Listens, and returns the address: "http://127.0.0.1:8000". Port 0 takes any free one. @throws TemporaError when it cannot be taken */
export function listen(server: Server, host: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const code = systemErrorCode(error) ?? (error as NodeJS.ErrnoException).code;
      const reasons: Record<string, string> = {
        EADDRINUSE: "something listens there already",
        EACCES: "this user may not listen there",
        EADDRNOTAVAIL: "this machine has no such address",
        ENOTFOUND: "there is no such host",
      };
      const reason = reasons[code ?? ""] ?? error.message;
      const remedy = "Choose another --port or --host.";
      reject(new TemporaError(`Cannot listen on ${host}:${port}: ${reason}`, { remedy, cause: error }));
    });
    server.listen(port, host, () => resolve(`http://${isIP(host) === 6 ? `[${host}]` : host}:${portOf(server)}`));
  });
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}
