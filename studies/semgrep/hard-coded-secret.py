import os


# ruleid: hard-coded-secret
def f(client, session, driver, a, api_key="k-123456"):
    # ruleid: hard-coded-secret
    password = "master-2019"
    # ruleid: hard-coded-secret
    token = "live-token-2019"
    # ruleid: hard-coded-secret
    driver.connect(a, password="master-2019")
    # ruleid: hard-coded-secret
    session.get({"password": "john21"})
    # ruleid: hard-coded-secret
    session["auth_token"] = "abcdef"
    return client.login(a, password), token


def g(client, a, password):
    # ok: hard-coded-secret
    token = os.environ["TOKEN"]
    # ok: hard-coded-secret
    secret = ""
    # ok: hard-coded-secret
    token_message = "please log in"
    # ok: hard-coded-secret
    return client.login(a, password=password), token, secret, token_message
