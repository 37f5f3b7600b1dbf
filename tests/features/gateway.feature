Feature: Gateway
  Every machine's pools behind one OpenAI-compatible port.

  Background:
    Given a queen is running
    And the hive of node "gpu-1" is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"

  @SK-GATE-1001
  Scenario: A pool's model is listed and served
    Then the gateway should list the model "llama-3.1-8b-instruct"
    When I ask the gateway to complete "Hello" with model "llama-3.1-8b-instruct"
    Then the completion should have text and usage

  @SK-GATE-1002
  Scenario: A stream passes through whole
    Then the gateway should list the model "llama-3.1-8b-instruct"
    When I stream a chat with model "llama-3.1-8b-instruct" through the gateway
    Then the stream should have one role, text, one finish and one end mark

  @SK-GATE-1003
  Scenario: A model that nobody serves is refused as OpenAI does
    When I ask the gateway to complete "Hello" with model "no-such-model"
    Then the gateway should refuse with status 404 and code "model_not_found"

  @SK-GATE-1004
  Scenario: A pool whose worker died is served again
    Then the gateway should list the model "llama-3.1-8b-instruct"
    When a worker of pool "pool-0" is killed
    Then pool "pool-0" should replace the worker, with the reason "signal"
    And the queen should know pool "pool-0" of node "gpu-1" as "ready"
    When I ask the gateway to complete "Hello" with model "llama-3.1-8b-instruct"
    Then the completion should have text and usage
