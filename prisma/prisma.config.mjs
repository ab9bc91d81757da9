// Makes the prisma CLI work without downloaded engines. With the engine 'js' it uses an adapter. The commands that this
// project uses (format, validate, migrate diff between schema files) need no database, so the adapter is a stub.
import { defineConfig } from 'prisma/config';

const connection = {
  provider: 'postgres',
  adapterName: 'offline',
  getConnectionInfo: () => ({ schemaName: 'public', supportsRelationJoins: true }),
  executeScript: async () => undefined,
  executeRaw: async () => 0,
  queryRaw: async () => ({ columnNames: [], columnTypes: [], rows: [] }),
  dispose: async () => undefined,
};
const connect = async () => connection;
const adapter = { provider: 'postgres', adapterName: 'offline', connect, connectToShadowDb: connect };

export default defineConfig({
  engine: 'js',
  experimental: { adapter: true },
  schema: '../schema.prisma',
  adapter: async () => adapter,
});
