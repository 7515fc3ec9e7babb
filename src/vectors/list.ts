/** Pages of records by rising id. A page token is the last id of the page before. */
import { invalid } from "../errors.js";
import { isVectorId, type VectorRecord } from "./vector.js";

export interface ListQuery {
  /** 1 to 1000; 0: 100. */
  pageSize: number;
  /** Empty for the first page. */
  pageToken: string;
  /** Labels that a record must have. */
  filter: Record<string, string>;
}

export interface RecordPage {
  records: VectorRecord[];
  /** Empty on the last page. */
  nextPageToken: string;
}

const DEFAULT_PAGE_SIZE = 100;
const MAX_PAGE_SIZE = 1000;

/** Records that come or go between two pages disturb no other. Throws InvalidArgumentError. */
export function listPage(records: ReadonlyMap<string, VectorRecord>, query: ListQuery): RecordPage {
  const pageSize = query.pageSize || DEFAULT_PAGE_SIZE;
  if (!Number.isInteger(pageSize) || pageSize < 1 || pageSize > MAX_PAGE_SIZE) {
    throw invalid("page_size", `${query.pageSize} is not from 1 to ${MAX_PAGE_SIZE}`);
  }
  const after = decodeToken(query.pageToken);
  const wanted = Object.entries(query.filter);
  const ids = [...records.keys()].filter((id) => id > after).sort();
  const page: VectorRecord[] = [];
  for (const id of ids) {
    const record = records.get(id);
    if (!record || !wanted.every(([key, value]) => hasLabel(record, key, value))) continue;
    // One more than fits tells that there is another page.
    if (page.length === pageSize) {
      return { records: page, nextPageToken: encodeToken(page.at(-1)?.id ?? "") };
    }
    page.push(record);
  }
  return { records: page, nextPageToken: "" };
}

function hasLabel(record: VectorRecord, key: string, value: string): boolean {
  return Object.hasOwn(record.labels, key) && record.labels[key] === value;
}

function encodeToken(id: string): string {
  return Buffer.from(id, "ascii").toString("base64url");
}

function decodeToken(token: string): string {
  if (token === "") return "";
  const id = Buffer.from(token, "base64url").toString("latin1");
  if (!isVectorId(id) || encodeToken(id) !== token) {
    throw invalid("page_token", "is not a token of an earlier response");
  }
  return id;
}
