// An OpenID provider for tests, in one process: `node --input-type=module --eval <this> <settings as JSON>`, in a folder that has
// `oidc-provider` installed. What a test may ask for beside the standards comes as further fields of the form.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[1]);
const BROKER = settings.audience;

function key(type, options, alg) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg, use: 'sig' };
}

const clients = [
  {
    client_id: 'service', client_secret: settings.secret, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
  },
  { client_id: 'broker', client_secret: settings.secret, grant_types: [], redirect_uris: [], response_types: [] },
  {
    client_id: 'execbroker-cli', token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: [], response_types: [],
    grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
  },
];

function asked(ctx) {
  return ctx?.oidc?.body ?? {};
}

const configuration = {
  clients,
  scopes: ['openid', 'profile', 'offline_access', 'run'],
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  extraTokenClaims: (ctx, token) => (token.accountId
    ? { preferred_username: token.accountId, groups: settings.groups }
    : { sub: asked(ctx).subject, preferred_username: asked(ctx).subject, groups: JSON.parse(asked(ctx).groups ?? '[]') }),
  formats: {
    customizers: {
      jwt: (ctx, token, jwt) => {
        Object.assign(jwt.payload, { sub: token.accountId ?? asked(ctx).subject }, JSON.parse(asked(ctx).claims ?? '{}'));
      },
    },
  },
  ttl: {
    AccessToken: settings.lifetime,
    ClientCredentials: (ctx) => Number(asked(ctx).lifetime ?? settings.lifetime),
    DeviceCode: settings.patience,
    Grant: 86400, Interaction: 600, RefreshToken: 86400, Session: 600, IdToken: 600,
  },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: settings.device },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, audience) => ({
        audience,
        scope: 'openid profile run',
        accessTokenFormat: asked(ctx).opaque ? 'opaque' : 'jwt',
        jwt: asked(ctx).opaque ? undefined : { sign: { alg: asked(ctx).alg ?? 'RS256' } },
      }),
    },
  },
};

let provider;
function rotate() {
  const jwks = { keys: [key('rsa', { modulusLength: 2048 }, 'RS256'), key('ec', { namedCurve: 'P-256' }, 'ES256')] };
  provider = new Provider(settings.issuer, { ...configuration, jwks, cookies: { keys: [randomUUID()] } });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'device_authorization' && ctx.status === 200) ctx.body.interval = 1;
  });
}
rotate();

const seen = {};
const server = createServer((request, response) => {
  if (request.url === '/control/rotate') {
    rotate();
    response.end('{}');
  } else if (request.url === '/control/seen') {
    response.end(JSON.stringify(seen));
  } else {
    seen[request.url.split('?')[0]] = (seen[request.url.split('?')[0]] ?? 0) + 1;
    provider.callback()(request, response);
  }
});
server.listen(settings.port, '127.0.0.1', () => console.log('READY'));
