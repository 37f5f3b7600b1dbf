Feature: Pool Preload
  A pool is ready when its model is resident and a token was produced, and never before.

  @OC-POOL-3001 @OC-POOL-3003
  Scenario: Successfully preload a pool
    Given pool-managerd is running
    And GPU 0 is available
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct"
    Then the pool state should be "provisioning"
    And the engine should download the model
    And the pool state should transition to "ready"
    And the handoff file should exist

  @OC-POOL-3001
  Scenario: A pool is not ready before its model is loaded
    Given the model "slow" is "fake:slow?load_delay_ms=700"
    And the hive is running
    When I preload pool "pool-0" with model "slow"
    Then pool "pool-0" should become "starting"
    And the readiness of the hive should name pool "pool-0" and "starting"
    And pool "pool-0" should become "ready"
    And pool "pool-0" should not be ready before its model was loaded
    And pool "pool-0" should have gone through "provisioning, starting, ready"
    And the hive should be ready

  @OC-POOL-3001
  Scenario: Preloading a pool twice changes nothing
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When I preload pool "pool-0" again
    Then the answer should be 202
    And pool "pool-0" should still be ready

  @OC-POOL-3002
  Scenario: A model that does not fit is refused before anything is spawned
    Given GPU 0 has 100 MiB
    And the hive is running
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct"
    Then pool "pool-0" should become "unready"
    And pool "pool-0" should tell the cause "insufficient_memory"
    And the fit of pool "pool-0" should name "weights, KV cache, headroom"
    And pool "pool-0" should never have started a process
    And pool "pool-0" should have a retry planned

  @OC-POOL-3003
  Scenario Outline: The cause of a failed load is told
    Given the model "bad" is "fake:bad?fail_load=<code>"
    And the hive is running
    When I preload pool "pool-0" with model "bad"
    Then pool "pool-0" should become "unready"
    And pool "pool-0" should tell the cause "<code>"
    And the verdicts of pool "pool-0" should have the reason "<reason>"
    And the readiness of the hive should name pool "pool-0" and "unready"

    Examples:
      | code                     | reason        |
      | gguf_truncated           | exit_code     |
      | unsupported_architecture | exit_code     |
      | device_out_of_memory     | out_of_memory |

  @OC-POOL-3070
  Scenario: A drained pool goes offline and leaves no process
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When I drain pool "pool-0" within 1 s
    Then pool "pool-0" should become "offline"
    And the last drain of pool "pool-0" should have cancelled 0 jobs
    And no process of pool "pool-0" should be left
    And no handoff file should exist
    And the log should tell the replicas of pool "pool-0" as "draining, stopping, stopped" at last

  @OC-POOL-3070
  Scenario: A drain lets what runs end by itself
    Given the model "slow" is "fake:slow?token_delay_ms=50"
    And the hive is running
    And pool "pool-0" is ready with model "slow"
    When a job of 20 tokens runs on pool "pool-0"
    And I drain pool "pool-0" within 30 s
    Then pool "pool-0" should become "offline"
    And the last drain of pool "pool-0" should have cancelled 0 jobs
    And no process of pool "pool-0" should be left

  @OC-POOL-3070
  Scenario: A drain cancels what still runs at its deadline
    Given the model "slow" is "fake:slow?token_delay_ms=100"
    And the hive is running
    And pool "pool-0" is ready with model "slow"
    When a job of 500 tokens runs on pool "pool-0"
    And I drain pool "pool-0" within 0.3 s
    Then pool "pool-0" should become "offline"
    And the last drain of pool "pool-0" should have cancelled 1 jobs
    And the log should tell the replicas of pool "pool-0" as "draining, stopping, stopped" at last

  @OC-POOL-3070
  Scenario Outline: A pool is drained on its way to ready, and loads again when it is wanted
    Given the model "demo" is "<model>"
    And the hive is running
    When I preload pool "pool-0" with model "demo"
    Then pool "pool-0" should become "<state>"
    When I drain pool "pool-0" within 0 s
    Then pool "pool-0" should become "offline"
    And no process of pool "pool-0" should be left
    When I preload pool "pool-0"
    Then pool "pool-0" should become "<state>"

    Examples:
      | state    | model                             |
      | starting | fake:slow?load_delay_ms=20000     |
      | unready  | fake:bad?fail_load=gguf_truncated |

  @OC-POOL-3070
  Scenario Outline: A pool that does not serve is deleted
    Given the model "demo" is "<model>"
    And the hive is running
    When I preload pool "pool-0" with model "demo"
    Then pool "pool-0" should become "<state>"
    When I delete pool "pool-0"
    Then pool "pool-0" should be unknown
    And no process of pool "pool-0" should be left
    And the log should tell pool "pool-0" as "offline" at last
    And the log should tell the replicas of pool "pool-0" as "stopping, stopped" at last

    Examples:
      | state    | model                             |
      | starting | fake:slow?load_delay_ms=20000     |
      | unready  | fake:bad?fail_load=gguf_truncated |

  @OC-POOL-3070
  Scenario Outline: A pool is <action> while its model comes
    Given the hub takes 20 s for model "big"
    And the hive is running
    When I preload pool "pool-0" with model "big"
    Then pool "pool-0" should become "provisioning"
    When I <order>
    Then pool "pool-0" should <end>
    And the log should tell pool "pool-0" as "offline" at last

    Examples:
      | action  | order                           | end              |
      | drained | drain pool "pool-0" within 0 s  | become "offline" |
      | deleted | delete pool "pool-0"            | be unknown       |

  @OC-POOL-3070
  Scenario: A pool that was only declared is deleted
    Given the hive is running
    And pool "pool-0" is declared with 1 replicas of model "llama-3.1-8b-instruct"
    When I delete pool "pool-0"
    Then pool "pool-0" should be unknown
    And the log should tell pool "pool-0" as "offline" at last

  @OC-POOL-3070
  Scenario: A pool that is deleted is forgotten
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When I delete pool "pool-0"
    Then pool "pool-0" should be unknown
    And no process of pool "pool-0" should be left
    And the log should tell pool "pool-0" as "offline" at last
    And the log should tell the replicas of pool "pool-0" as "draining, stopping, stopped" at last

  @OC-POOL-3071
  Scenario: A reload puts another model in place
    Given the model "other" is "fake:other"
    And the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When I reload pool "pool-0" with model "other"
    Then the last reload of pool "pool-0" should be "reloaded"
    And pool "pool-0" should serve model "other"
    And pool "pool-0" should have gone straight from "reloading" to "ready"

  @OC-POOL-3071
  Scenario: A reload that fails restores the running model
    Given the model "bad" is "fake:bad?fail_load=gguf_truncated"
    And the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When I reload pool "pool-0" with model "bad"
    Then the last reload of pool "pool-0" should be "rolled_back"
    And pool "pool-0" should serve model "llama-3.1-8b-instruct"
    And pool "pool-0" should have gone straight from "reloading" to "ready"

  @OC-POOL-3071
  Scenario: A pool that could not load is mended by a reload
    Given the model "bad" is "fake:bad?fail_load=gguf_truncated"
    And the model "good" is "fake:good"
    And the hive is running
    When I preload pool "pool-0" with model "bad"
    Then pool "pool-0" should become "unready"
    When I reload pool "pool-0" with model "good"
    Then the last reload of pool "pool-0" should be "reloaded"
    And pool "pool-0" should serve model "good"
    And pool "pool-0" should have gone straight from "reloading" to "ready"

  @OC-POOL-3070 @OC-POOL-3071
  Scenario Outline: A reload is broken off when the pool is <action>
    Given the model "slow" is "fake:slow?load_delay_ms=20000"
    And the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When I reload pool "pool-0" with model "slow"
    Then pool "pool-0" should become "reloading"
    When I <order>
    Then pool "pool-0" should <end>
    And no process of pool "pool-0" should be left
    And the log should tell pool "pool-0" as "offline" at last

    Examples:
      | action  | order                           | end              |
      | drained | drain pool "pool-0" within 0 s  | become "offline" |
      | deleted | delete pool "pool-0"            | be unknown       |

  @OC-POOL-3072
  Scenario: An idle pool unloads, and loads again when it is wanted
    Given the hive is running
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct" that unloads after 1 idle seconds
    Then pool "pool-0" should become "ready"
    And pool "pool-0" should become "idle"
    And no process of pool "pool-0" should be left
    When I preload pool "pool-0"
    Then pool "pool-0" should become "ready"
    And pool "pool-0" should become "idle"
    When I delete pool "pool-0"
    Then pool "pool-0" should be unknown
    And the log should tell pool "pool-0" as "offline" at last

  @OC-POOL-3090
  Scenario Outline: A bad request is refused and says why
    Given the hive is running
    When I ask <method> <path>
    Then the answer should be an error "<code>" with status <status>

    Examples:
      | method | path                     | code           | status |
      | GET    | /v2/pools/none           | pool_not_found | 404    |
      | POST   | /v2/pools/none/preload   | pool_not_found | 404    |
