Feature: Worker
  One model, served: streams that end once, cancels that free, refusals that explain.

  Background:
    Given a worker is running

  @SK-WORK-1001
  Scenario: A worker proves itself
    Then the worker should prove itself by its nonce
    And every slot of the worker should be free again

  @SK-WORK-1002
  Scenario: A stream ends exactly once
    When I ask the worker to go on from "Once upon a time" for 12 tokens
    Then the stream should have 12 tokens and one end

  @SK-WORK-1003
  Scenario: The same seed gives the same tokens
    When I ask the worker to go on from "Hello" for 12 tokens
    And I ask the worker to go on from "Hello" for 12 tokens
    Then both streams should be equal

  @SK-WORK-1004
  Scenario: A cancelled job frees its slot
    When I start a job of 900 tokens and cancel it after its first token
    Then the stream should end with the error "cancelled"
    And every slot of the worker should be free again

  @SK-WORK-1005
  Scenario: Every mistake of a request is told
    When I send the worker a request with three mistakes
    Then the worker should answer 400 and name every mistake

  @SK-WORK-1006
  Scenario: A drained worker refuses new jobs
    When the worker is drained
    Then the worker should refuse new jobs
