// Run with the generated client against a broker: `visit.js BASE_URL TOKEN` asks, accepts, cancels, runs directly.

import assert from 'node:assert';
import {
    AbstractExecutionSession,
    AbstractExecutionSessionFromJSON,
    Configuration,
    DefaultApi,
    EnumValueOption,
    EnumValueUpdate,
    ExecutionRequest,
    JupyterNotebook,
    OfferSetResponse,
    ResponseError,
    ScheduledExecutionSession,
    SimpleComputeResource,
} from './client';

const KINDS = 'https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds';
const ENOUGH_CORES = 1;
const TOO_MANY_CORES = 1_000_000;
const PATIENCE = 60;

const [base, token] = process.argv.slice(2);
const api = new DefaultApi(new Configuration({ basePath: base, headers: { Authorization: `Bearer ${token}` } }));

function request(cores: number): ExecutionRequest {
    const executable: JupyterNotebook = {
        kind: `${KINDS}/executable/jupyter-notebook.yaml`,
        location: 'http://example.org/notebook.ipynb',
    };
    const compute: SimpleComputeResource = { kind: `${KINDS}/compute/simple-compute-resource.yaml`, cores: { min: cores } };
    return { executable, compute };
}

/** An interface has no class at run time: which one was read shows by the fields that only it has, and by their types. */
function offer(session: AbstractExecutionSession): ScheduledExecutionSession & { uuid: string } {
    const offer = session as ScheduledExecutionSession;
    assert.equal(offer.kind, `${KINDS}/session/scheduled-execution-session.yaml`);
    assert.equal(offer.phase, 'OFFERED');
    assert.ok(offer.expires instanceof Date);
    assert.ok(offer.schedule?.preparing?.duration && offer.schedule.available?.start && offer.schedule.releasing?.duration);
    assert.equal((offer.executable as JupyterNotebook).location, 'http://example.org/notebook.ipynb');
    assert.ok((offer.compute as SimpleComputeResource).cores!.max! >= ENOUGH_CORES);
    const choices = offer.meta?.options?.find((option) => option.path === 'phase') as EnumValueOption;
    assert.ok(['ACCEPTED', 'REJECTED'].every((phase) => choices.values.includes(phase)));
    assert.ok(offer.meta?.uuid && offer.meta.created instanceof Date);
    return { ...offer, uuid: offer.meta.uuid };
}

const phase = (session: AbstractExecutionSession): string => (session as ScheduledExecutionSession).phase!;

async function update(uuid: string, value: string): Promise<string> {
    const change: EnumValueUpdate = { kind: 'uri:enum-value-update', path: 'phase', value };
    return phase(await api.sessionUpdate({ uuid, abstractUpdate: change }));
}

async function until(uuid: string, wanted: string): Promise<string> {
    let seen = '';
    for (let i = 0; i < PATIENCE * 5; i++) {
        seen = phase(await api.sessionSelect({ uuid }));
        if (seen === wanted) return seen;
        await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.fail(`session ${uuid} is ${seen} and not ${wanted}`);
}

const ask = (cores: number): Promise<OfferSetResponse> => api.executionRequest({ executionRequest: request(cores) });

async function askAcceptCancel(): Promise<object> {
    const answer = await ask(ENOUGH_CORES);
    assert.equal(answer.result, 'YES');
    const offers = answer.offers!.map(offer);
    const again = await api.offerSetSelect({ uuid: answer.meta!.uuid! });
    assert.deepEqual(again.offers!.map(offer), offers);
    const [first, ...rest] = offers.map((one) => one.uuid);
    const accepted = await update(first!, 'ACCEPTED');
    const others = await Promise.all(rest.map((uuid) => until(uuid, 'REJECTED')));
    await update(first!, 'CANCELLED');
    return { offers: offers.length, accepted, others, cancelled: await until(first!, 'CANCELLED') };
}

async function runDirectly(): Promise<object> {
    const session = await api.directExecution({ executionRequest: request(ENOUGH_CORES) });
    await update(session.meta!.uuid!, 'CANCELLED');
    return { phase: phase(session), cancelled: await until(session.meta!.uuid!, 'CANCELLED') };
}

async function refusals(): Promise<object> {
    const answer = await ask(TOO_MANY_CORES);
    assert.ok(answer.meta?.messages?.length);
    const refusal: unknown = await api.directExecution({ executionRequest: request(TOO_MANY_CORES) }).catch((error) => error);
    assert.ok(refusal instanceof ResponseError && refusal.response.status === 400);
    const failed = AbstractExecutionSessionFromJSON(await refusal.response.json());
    return { result: answer.result, direct: phase(failed) };
}

async function main(): Promise<void> {
    const seen = { asked: await askAcceptCancel(), direct: await runDirectly(), refused: await refusals() };
    console.log(JSON.stringify(seen));
}

main().catch((error) => {
    console.error(error);
    process.exitCode = 1;
});
