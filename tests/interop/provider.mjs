// An OAuth 2.0 server that nobody here wrote (npm oidc-provider), for test_interop.py.
//
// usage: node provider.mjs CONFIG.json
//
// CONFIG: port, key and certificate of TLS, secret, jwk (of the application's
// certificate), lifetime. Clients: secret, certificate-PS256, certificate-RS256,
// device, relay@contoso.com (an application whose name Dovecot takes for a
// user's), and dovecot, which asks what a token is worth. Prints "ready".
// GET /approve?user_code=... is what a user does in a browser; GET /requests tells the
// grants that were served, and the refresh token that each gave.
import fs from 'node:fs';
import https from 'node:https';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const config = JSON.parse(fs.readFileSync(process.argv[2]));
const { default: Provider } = await import(pathToFileURL(
  createRequire(config.modules + '/').resolve('oidc-provider')));

const SCOPE = 'SMTP.Send';
const common = { redirect_uris: [], response_types: [], scope: `openid offline_access ${SCOPE}` };
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';
const issuer = `https://localhost:${config.port}`;
const served = [];

const provider = new Provider(issuer, {
  clients: [
    { ...common, client_id: 'secret', client_secret: config.secret,
      grant_types: ['client_credentials'], token_endpoint_auth_method: 'client_secret_post' },
    { ...common, client_id: 'relay@contoso.com', client_secret: config.secret,
      grant_types: ['client_credentials'], token_endpoint_auth_method: 'client_secret_post' },
    { ...common, client_id: 'dovecot', client_secret: config.secret, grant_types: [],
      token_endpoint_auth_method: 'client_secret_post' },
    ...['PS256', 'RS256'].map((alg) => ({
      ...common, client_id: `certificate-${alg}`, grant_types: ['client_credentials'],
      token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: alg,
      jwks: { keys: [config.jwk] } })),
    { ...common, client_id: 'device', application_type: 'native',
      grant_types: [DEVICE, 'refresh_token'], token_endpoint_auth_method: 'none' },
  ],
  scopes: ['openid', 'offline_access', SCOPE],
  features: { clientCredentials: { enabled: true }, deviceFlow: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    devInteractions: { enabled: false } },
  rotateRefreshToken: true,
  ttl: { AccessToken: config.lifetime, ClientCredentials: config.lifetime, DeviceCode: 600,
    RefreshToken: 86400, Grant: 86400 },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});

provider.on('grant.success', (ctx) => served.push({
  grant: ctx.oidc.params.grant_type, client: ctx.oidc.client.clientId,
  refresh_token: ctx.body.refresh_token }));
provider.on('grant.error', (ctx, error) => served.push({ error: error.error_description }));

async function approve(userCode) {
  const code = await provider.DeviceCode.findByUserCode(userCode.replace(/[^A-Z0-9]/gi, ''));
  const grant = new provider.Grant({ accountId: 'relay', clientId: 'device' });
  grant.addOIDCScope(common.scope);
  Object.assign(code, { accountId: 'relay', grantId: await grant.save(), scope: common.scope,
    authTime: Math.floor(Date.now() / 1000), amr: ['pwd'], claims: {}, sessionUid: 'x',
    expiresWithSession: false });
  await code.save();
}

const serve = provider.callback();
https.createServer({ key: fs.readFileSync(config.key), cert: fs.readFileSync(config.certificate) },
  async (request, response) => {
    const url = new URL(request.url, issuer);
    if (url.pathname === '/approve') {
      await approve(url.searchParams.get('user_code'));
      response.end('{}');
    } else if (url.pathname === '/requests') {
      response.end(JSON.stringify(served));
    } else {
      serve(request, response);
    }
  }).listen(config.port, '127.0.0.1', () => console.log('ready'));
