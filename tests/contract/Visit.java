import client.ApiClient;
import client.ApiException;
import client.api.DefaultApi;
import client.api.DefaultApi.APIDirectExecutionRequest;
import client.api.DefaultApi.APIExecutionRequestRequest;
import client.api.DefaultApi.APIOfferSetSelectRequest;
import client.api.DefaultApi.APISessionSelectRequest;
import client.api.DefaultApi.APISessionUpdateRequest;
import client.model.AbstractExecutionSession;
import client.model.EnumValueOption;
import client.model.EnumValueUpdate;
import client.model.ExecutionRequest;
import client.model.JupyterNotebook;
import client.model.OfferSetResponse;
import client.model.ScheduledExecutionSession;
import client.model.SimpleComputeCores;
import client.model.SimpleComputeResource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** Run with the generated client against a broker: {@code Visit BASE_URL TOKEN} asks, accepts, cancels, runs directly. */
public class Visit {
    static final long ENOUGH_CORES = 1, TOO_MANY_CORES = 1_000_000;
    static final int PATIENCE = 60;

    final DefaultApi api;
    final ApiClient client;

    Visit(String base, String token) {
        client = new ApiClient();
        client.updateBaseUri(base);
        client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + token));
        api = new DefaultApi(client);
    }

    static void check(boolean condition, String complaint) {
        if (!condition) {
            System.err.println(complaint);
            System.exit(1);
        }
    }

    static ExecutionRequest request(long cores) {
        return new ExecutionRequest()
            .executable(new JupyterNotebook().location("http://example.org/notebook.ipynb"))
            .compute(new SimpleComputeResource().cores(new SimpleComputeCores().min(cores)));
    }

    static ScheduledExecutionSession offer(AbstractExecutionSession session) {
        check(session instanceof ScheduledExecutionSession, "an offer is a " + session.getClass());
        var offer = (ScheduledExecutionSession) session;
        check(offer.getPhase().getValue().equals("OFFERED"), "an offer is " + offer.getPhase());
        check(offer.getExpires() != null, "an offer needs `expires`");
        check(offer.getSchedule().getAvailable().getStart() != null, "an offer has no start");
        check(offer.getSchedule().getPreparing() != null && offer.getSchedule().getReleasing() != null, "a step has no time");
        check(offer.getExecutable() instanceof JupyterNotebook, "the executable became a " + offer.getExecutable().getClass());
        check(offer.getCompute() instanceof SimpleComputeResource, "the compute became a " + offer.getCompute().getClass());
        check(((SimpleComputeResource) offer.getCompute()).getCores().getMax() >= ENOUGH_CORES, "an offer has too few cores");
        var choices = offer.getMeta().getOptions().stream()
            .filter(option -> option.getPath().equals("phase"))
            .flatMap(option -> ((EnumValueOption) option).getValues().stream()).toList();
        check(choices.containsAll(List.of("ACCEPTED", "REJECTED")), "an offer's options are " + choices);
        return offer;
    }

    static String phase(AbstractExecutionSession session) {
        return ((ScheduledExecutionSession) session).getPhase().getValue();
    }

    String update(UUID uuid, String phase) throws ApiException {
        var change = new EnumValueUpdate().value(phase).path("phase");
        return phase(api.sessionUpdate(APISessionUpdateRequest.newBuilder().uuid(uuid).abstractUpdate(change).build()));
    }

    String until(UUID uuid, String phase) throws Exception {
        var seen = "";
        for (int i = 0; i < PATIENCE * 5; i++) {
            seen = phase(api.sessionSelect(APISessionSelectRequest.newBuilder().uuid(uuid).build()));
            if (seen.equals(phase)) {
                return seen;
            }
            Thread.sleep(200);
        }
        check(false, "session " + uuid + " is " + seen + " and not " + phase);
        return seen;
    }

    OfferSetResponse ask(long cores) throws ApiException {
        return api.executionRequest(APIExecutionRequestRequest.newBuilder().executionRequest(request(cores)).build());
    }

    AbstractExecutionSession direct(long cores) throws ApiException {
        return api.directExecution(APIDirectExecutionRequest.newBuilder().executionRequest(request(cores)).build());
    }

    Map<String, Object> askAcceptCancel() throws Exception {
        var answer = ask(ENOUGH_CORES);
        check(answer.getResult().getValue().equals("YES"), "the answer was " + answer);
        var offers = answer.getOffers().stream().map(Visit::offer).toList();
        var again = api.offerSetSelect(APIOfferSetSelectRequest.newBuilder().uuid(answer.getMeta().getUuid()).build());
        check(again.getOffers().stream().map(Visit::offer).toList().equals(offers), "read again it has other offers");
        var first = offers.get(0).getMeta().getUuid();
        var accepted = update(first, "ACCEPTED");
        var others = new ArrayList<String>();
        for (var other : offers.subList(1, offers.size())) {
            others.add(until(other.getMeta().getUuid(), "REJECTED"));
        }
        update(first, "CANCELLED");
        return Map.of(
            "offers", offers.size(), "accepted", accepted, "others", others, "cancelled", until(first, "CANCELLED"));
    }

    Map<String, Object> runDirectly() throws Exception {
        var session = direct(ENOUGH_CORES);
        check(session instanceof ScheduledExecutionSession, "/direct gave a " + session.getClass());
        update(session.getMeta().getUuid(), "CANCELLED");
        return Map.of("phase", phase(session), "cancelled", until(session.getMeta().getUuid(), "CANCELLED"));
    }

    Map<String, Object> refusals() throws Exception {
        var answer = ask(TOO_MANY_CORES);
        check(answer.getResult().getValue().equals("NO") && !answer.getMeta().getMessages().isEmpty(), "no reason: " + answer);
        try {
            direct(TOO_MANY_CORES);
        } catch (ApiException refusal) {
            check(refusal.getCode() == 400, "/direct refused with " + refusal.getCode());
            var failed = client.getObjectMapper().readValue(refusal.getResponseBody(), AbstractExecutionSession.class);
            return Map.of("result", answer.getResult().getValue(), "direct", phase(failed));
        }
        throw new IllegalStateException("asked too much, /direct ran it");
    }

    public static void main(String[] arguments) throws Exception {
        var visit = new Visit(arguments[0], arguments[1]);
        var seen = Map.of("asked", visit.askAcceptCancel(), "direct", visit.runDirectly(), "refused", visit.refusals());
        System.out.println(visit.client.getObjectMapper().writeValueAsString(seen));
    }
}
