/** TLS of the gRPC server from PEM files, taken again when they are replaced. */
import { createSecureContext } from "node:tls";
import { experimental, type ServerCredentials } from "@grpc/grpc-js";
import { WatchedFiles } from "./watched-file.js";

export interface TlsFiles {
  cert: string;
  key: string;
  /** Clients must show a certificate that it signed; null: none is asked for. */
  clientCa: string | null;
}

interface Pem {
  certificate: Buffer;
  privateKey: Buffer;
  clientCa: Buffer | null;
}

export interface ServerTls {
  credentials: ServerCredentials;
  close(): void;
}

/** Throws a StartupError. Connections that are open keep the certificate that they began with. */
export function openTls(
  files: TlsFiles,
  intervalMs: number,
  onReload: (error: string | null) => void,
): ServerTls {
  const watched = WatchedFiles.open<Pem>({
    files: [files.cert, files.key, ...(files.clientCa === null ? [] : [files.clientCa])],
    parse: checkedPem,
    intervalMs,
    onReload,
  });
  const provider = new WatchedCertificates(watched);
  const asksClients = files.clientCa !== null;
  // The first is the server's own identity, the second the authority of clients, whatever grpc-js
  // calls its parameters; tests/rpc/tls.test.ts holds both.
  const credentials = experimental.createCertificateProviderServerCredentials(
    provider,
    asksClients ? provider : null,
    asksClients,
  );
  return { credentials, close: () => watched.close() };
}

function checkedPem([certificate, privateKey, clientCa]: readonly Buffer[]): Pem {
  if (!certificate || !privateKey) throw new Error("certificate and key are needed");
  // Throws when they do not belong together.
  createSecureContext({
    cert: certificate,
    key: privateKey,
    ...(clientCa ? { ca: clientCa } : {}),
  });
  return { certificate, privateKey, clientCa: clientCa ?? null };
}

type CaListener = experimental.CaCertificateUpdateListener;
type IdentityListener = experimental.IdentityCertificateUpdateListener;

class WatchedCertificates implements experimental.CertificateProvider {
  private readonly ends = new Map<unknown, () => void>();

  constructor(private readonly watched: WatchedFiles<Pem>) {}

  addCaCertificateListener(listener: CaListener): void {
    this.add(listener, ({ clientCa }) =>
      listener(clientCa === null ? null : { caCertificate: clientCa }),
    );
  }

  removeCaCertificateListener(listener: CaListener): void {
    this.remove(listener);
  }

  addIdentityCertificateListener(listener: IdentityListener): void {
    this.add(listener, ({ certificate, privateKey }) => listener({ certificate, privateKey }));
  }

  removeIdentityCertificateListener(listener: IdentityListener): void {
    this.remove(listener);
  }

  private add(key: unknown, tell: (pem: Pem) => void): void {
    this.ends.set(key, this.watched.subscribe(tell));
    process.nextTick(tell, this.watched.current);
  }

  private remove(key: unknown): void {
    this.ends.get(key)?.();
    this.ends.delete(key);
  }
}
